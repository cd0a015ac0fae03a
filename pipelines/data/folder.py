"""Decoding the image files of a folder into one array per split."""

from __future__ import annotations

import os
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from shutil import disk_usage
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipelines.data.config import DataConfig
from pipelines.data.folder_tree import FileList, find_images, read_tree
from pipelines.data.image_set import DataSplits, ImageSet
from pipelines.data.pixels import GRAY_MODES, to_pixels
from pipelines.data.splitting import split

T = TypeVar("T")

FORMATS = ("PNG", "JPEG", "WEBP")
WINDOW = 256  # Files decoded ahead of the copy into the array, to bound the memory in flight.

# What Pillow raises on files that are damaged, or are not images at all.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class BrokenImageError(ValueError):
    """A file that cannot be read as an image; the message names it and the cure."""


@contextmanager
def image_reader() -> Iterator[ThreadPoolExecutor]:
    """Gives a pool of threads in which Pillow refuses decompression bombs instead of warning."""
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        # Damaged metadata (EXIF) in a file whose pixels are sound is nobody's concern here.
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield pool


def read_image(path: Path, read: Callable[[Image.Image], T]) -> T:
    """Gives `read(image)` of the image file at `path`.

    Args:
        path: a PNG, JPEG or WebP file, whatever its ending says.
        read: what to take from the opened image; decoding happens in it.

    Returns:
        What `read` gives.

    Raises:
        BrokenImageError: the file cannot be opened or decoded, or is a decompression bomb.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return read(image)
    except BROKEN as error:
        if isinstance(error, UnidentifiedImageError):
            reason = "it is not a PNG, JPEG or WebP file"
        else:
            reason = (getattr(error, "strerror", None) or str(error)).rstrip(".")
        raise BrokenImageError(
            f"{path} must be a readable image, but {reason}: replace or remove it, or leave "
            "out all broken files with --data.skip-broken"
        ) from error


def _read_all(
    pool: ThreadPoolExecutor, paths: Sequence[Path], read: Callable[[Image.Image], T]
) -> Iterator[tuple[Path, T | BrokenImageError]]:
    """Yields each file with what `read` gives for it, or its error, in the order of `paths`."""

    def attempt(path: Path) -> T | BrokenImageError:
        try:
            return read_image(path, read)
        except BrokenImageError as error:
            return error

    for start in range(0, len(paths), WINDOW):
        window = paths[start : start + WINDOW]
        yield from zip(window, pool.map(attempt, window), strict=True)


def common_channels(pool: ThreadPoolExecutor, paths: Sequence[Path], *, skip_broken: bool) -> int:
    """Gives 1 if every file is gray by its header, else 3.

    Raises:
        BrokenImageError: a header cannot be read and `skip_broken` is False.
    """
    channels = 1
    for _, mode in _read_all(pool, paths, lambda image: image.mode):
        if isinstance(mode, BrokenImageError):
            if not skip_broken:
                raise mode
        elif mode not in GRAY_MODES:
            channels = 3
    return channels


def empty_pixels(shape: tuple[int, ...], config: DataConfig) -> NDArray[np.uint8]:
    """Gives a uint8 array to fill: in RAM, or above `max_memory_mib` in a temporary file.

    Args:
        shape: (N, C, H, W).
        config: gives the limit, and the data folder in which the temporary file lives.

    Returns:
        uint8 array of `shape`; its file, if any, has no name and goes with the process.

    Raises:
        OSError: the disk has too little space left.
    """
    size = int(np.prod(shape, dtype=np.int64))
    if size <= config.max_memory_mib * 2**20:
        return np.empty(shape, np.uint8)
    config.root.mkdir(parents=True, exist_ok=True)
    free = disk_usage(config.root).free
    if size > free:
        raise OSError(
            f"the decoded images need {size / 2**20:.0f} MiB in {config.root}, which has "
            f"{free / 2**20:.0f} MiB left: free some space or choose another --data.root"
        )
    with tempfile.TemporaryFile(dir=config.root) as file:
        return np.memmap(file, np.uint8, mode="w+", shape=shape)


def decode(
    pool: ThreadPoolExecutor, files: FileList, channels: int, config: DataConfig
) -> tuple[ImageSet, int]:
    """Gives the decoded images of `files` in their order, and how many were broken.

    Args:
        pool: threads of `image_reader`.
        files: what to decode, at least one file.
        channels: 1 for gray, 3 for RGB.
        config: size, handling of broken files, and memory limit.

    Returns:
        The images, and the number of broken files left out.

    Raises:
        BrokenImageError: a file is broken and `config.skip_broken` is False.
        ValueError: all files are broken, or no size is asked for and the files differ in theirs.
        OSError: too little disk space.
    """
    first, pixels = files.paths[0], None
    kept: list[int] = []
    results = _read_all(
        pool, files.paths, lambda image: to_pixels(image, config.image_size, channels)
    )
    for index, (path, result) in enumerate(results):
        if isinstance(result, BrokenImageError):
            if not config.skip_broken:
                raise result
            continue
        if pixels is None:
            first, pixels = path, empty_pixels((len(files), *result.shape), config)
        if result.shape != pixels.shape[1:]:
            (height, width), (other_height, other_width) = result.shape[1:], pixels.shape[2:]
            raise ValueError(
                f"all images must have one size, got {height}x{width} pixels in {path} and "
                f"{other_height}x{other_width} in {first}: give a common height and width, for "
                "example --data.image-size 64 64"
            )
        pixels[len(kept)] = result
        kept.append(index)
    if pixels is None:
        raise ValueError(
            f"each split must have at least one readable image, got {len(files)} broken files, "
            f"such as {first}: add readable images"
        )
    labels = None if files.labels is None else files.labels[kept]
    return ImageSet(pixels[: len(kept)], labels), len(files) - len(kept)


def load_folder(folder: Path, config: DataConfig) -> DataSplits:
    """Gives the splits of a tree of image files; see `read_tree` for what sub-folders mean.

    The split is made on the files, before any is decoded, so that a broken file moves no other one
    to another split, and a limited run decodes only what it uses.

    Args:
        folder: the tree.
        config: form of the images and sizes of the splits.

    Returns:
        The decoded splits, with the number of broken files left out.

    Raises:
        OSError: the folder is missing or cannot be listed, or the disk is full.
        ValueError: bad or too few files; see `read_tree`, `split` and `decode`.
    """
    given = read_tree(folder, with_labels=config.labels)
    parts = split(
        given,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        limit=config.limit,
    )
    with image_reader() as pool:
        channels = config.channels or common_channels(
            pool, [path for part in parts for path in part.paths], skip_broken=config.skip_broken
        )
        (train, *others), skipped = zip(
            *(decode(pool, part, channels, config) for part in parts), strict=True
        )
    validation, test = others
    return DataSplits(train, validation, test, given.class_names, sum(skipped))


def read_images(path: Path, image_shape: tuple[int, int, int]) -> ImageSet:
    """Reads one image file, or all of a folder, without splits or labels.

    Args:
        path: a PNG, JPEG or WebP file, or a folder of them at any depth.
        image_shape: (C, H, W) that every image is brought to, C = 1 or 3.

    Returns:
        The images in the order of their paths.

    Raises:
        OSError: the path is missing or cannot be listed.
        ValueError: a file is broken, or there is no image.
    """
    channels, *size = image_shape
    paths = [path] if path.is_file() else find_images(path)
    config = DataConfig(image_size=(size[0], size[1]))
    with image_reader() as pool:
        images, _ = decode(pool, FileList(tuple(paths), None), channels, config)
    return images
