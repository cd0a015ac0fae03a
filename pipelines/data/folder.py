"""The image files of a folder, decoded into one array per split."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage

import numpy as np
from numpy.typing import NDArray

from pipelines.data.config import DataConfig
from pipelines.data.decoding import (
    BrokenImageError,
    Header,
    TooLargeImageError,
    decoding_threads,
    read_all,
    read_header,
    read_pixels,
)
from pipelines.data.folder_splits import read_tree
from pipelines.data.folder_tree import FileList, find_images
from pipelines.data.form import ImageForm, describe_losses
from pipelines.data.image_set import DataSplits, ImageSet
from pipelines.data.splitting import split
from pipelines.files.names import printable

_BROKEN = Header(is_gray=True, num_pixels=0, size=(0, 0))
"""Stands for the header of a file that decoding will not read either."""


def read_headers(
    pool: ThreadPoolExecutor, paths: Sequence[Path], config: DataConfig
) -> list[Header]:
    """Reads the header of each file; with `config.skip_broken`, `_BROKEN` for one without any.

    Raises:
        BrokenImageError: A header cannot be read and `config.skip_broken` is False.
    """

    def read(path: Path) -> Header:
        return read_header(path, config.form, config.max_image_megapixels)

    headers = []
    for _, header in read_all(pool, paths, read):
        if isinstance(header, BrokenImageError):
            if not config.skip_broken:
                raise header
            header = _BROKEN
        headers.append(header)
    return headers


def empty_pixels(shape: tuple[int, ...], config: DataConfig) -> NDArray[np.uint8]:
    """Allocates a uint8 array in RAM, or above `max_memory_mib` in a temporary file.

    The file, in the data folder, has no name and ends with the process.

    Raises:
        OSError: The disk has too little space.
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


class SameSize:
    """Check that all images have the size of the first one."""

    def __init__(self) -> None:
        self._first: tuple[Path, tuple[int, ...]] | None = None

    def check(self, path: Path, shape: tuple[int, ...]) -> None:
        """Compares (C, H, W) of the image at `path` with that of the first call.

        Raises:
            ValueError: They differ.
        """
        first, expected = self._first = self._first or (path, shape)
        if shape != expected:
            raise ValueError(
                f"all images must have one size, got {shape[1]}x{shape[2]} pixels in "
                f"{printable(path)} and {expected[1]}x{expected[2]} in {printable(first)}: give a "
                "common height and width, for example --data.image-size 64 64"
            )


def decode(
    pool: ThreadPoolExecutor,
    files: FileList,
    headers: Sequence[Header],
    channels: int,
    config: DataConfig,
    same_size: SameSize,
) -> tuple[ImageSet, int]:
    """Decodes image files into one array, in their order; also counts the broken ones left out.

    Args:
        pool: Threads of `decoding_threads`.
        files: At least one file.
        headers: Of the files, (N,).
        channels: 1 for gray, 3 for RGB.
        config: Size, handling of broken files, and memory limits.
        same_size: Compares the images of all splits.

    Raises:
        BrokenImageError: A file is broken and `config.skip_broken` is False.
        ValueError: All files are broken.
    """

    def read(path: Path) -> NDArray[np.uint8]:
        return read_pixels(path, config.form, channels, config.max_image_megapixels)

    pixels = None
    kept: list[int] = []
    results = read_all(pool, files.paths, read, [header.num_pixels for header in headers])
    for index, (path, result) in enumerate(results):
        if isinstance(result, BrokenImageError):
            if not config.skip_broken:
                raise result
            continue
        same_size.check(path, result.shape)
        if pixels is None:
            pixels = empty_pixels((len(files), *result.shape), config)
        pixels[len(kept)] = result
        kept.append(index)
    if pixels is None:
        raise ValueError(
            f"each split must have at least one readable image, got {len(files)} broken files, "
            f"such as {printable(files.paths[0])}: add readable images"
        )
    labels = None if files.labels is None else files.labels[kept]
    return ImageSet(pixels[: len(kept)], labels), len(files) - len(kept)


def load_folder(folder: Path, config: DataConfig) -> DataSplits:
    """Loads the splits of a tree of image files; `read_tree` interprets the sub-folders.

    The files are split before any is decoded, so that a broken file moves no other one to another
    split, and a limited run decodes only its own images.
    """
    with _naming_options(), decoding_threads() as pool:
        given = read_tree(folder, with_labels=config.labels, skip_broken=config.skip_broken)
        parts = split(
            given,
            validation_fraction=config.validation_fraction,
            test_fraction=config.test_fraction,
            limit=config.limit,
        )
        headers = [read_headers(pool, part.paths, config) for part in parts]
        gray = all(header.is_gray for part in headers for header in part)
        channels, same_size = config.channels or (1 if gray else 3), SameSize()
        (train, *others), skipped = zip(
            *(
                decode(pool, part, part_headers, channels, config, same_size)
                for part, part_headers in zip(parts, headers, strict=True)
            ),
            strict=True,
        )
    validation, test = others
    every = [header for part in headers for header in part if header is not _BROKEN]
    num_transparent = sum(header.is_transparent for header in every)
    losses = describe_losses([header.size for header in every], num_transparent, config.form)
    notes = (*given.notes, *losses)
    return DataSplits(train, validation, test, given.class_names, sum(skipped), notes)


@contextmanager
def _naming_options() -> Iterator[None]:
    """Adds the helpful options to the message about an unreadable image."""
    try:
        yield
    except BrokenImageError as error:
        is_large = isinstance(error, TooLargeImageError)
        larger = ", raise --data.max-image-megapixels" if is_large else ""
        raise type(error)(
            f"{error}{larger}, or leave out all broken files with --data.skip-broken"
        ) from error


@dataclass(frozen=True, eq=False)
class OwnImages:
    """Images of files that belong to no data set."""

    images: ImageSet
    """In the order of their paths, without labels."""
    sizes: tuple[tuple[int, int], ...]
    """Height and width of each image in its file, upright."""
    notes: tuple[str, ...]
    """Skipped files, in sentences."""


def read_images(path: Path, channels: int, form: ImageForm) -> OwnImages:
    """Reads one image file, or all of a folder at any depth, without splits or labels.

    `channels` is 1 for gray, 3 for RGB.
    """
    paths, notes = ([path], ()) if path.is_file() else find_images(path)
    config = DataConfig(image_size=form.size, fit=form.fit, background=form.background)
    with decoding_threads() as pool:
        headers = read_headers(pool, paths, config)
        files = FileList(tuple(paths), None)
        images, _ = decode(pool, files, headers, channels, config, SameSize())
    return OwnImages(images, tuple(header.size for header in headers), tuple(notes))
