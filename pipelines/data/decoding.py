"""Decoding of image files in threads, within bounds of size and memory."""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipelines.data.config import MAX_IMAGE_MEGAPIXELS
from pipelines.data.form import ImageForm
from pipelines.data.pixels import ALPHA_MODES, GRAY_MODES, shrink_on_load, to_pixels, upright_size
from pipelines.files.names import one_line, printable

T = TypeVar("T")

# Other decoders need further programs, are not for pictures, or are rarely audited for security.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "HEIF")
WINDOW = 256  # Files decoded ahead of the copy into the array, to bound the memory in flight.
WINDOW_PIXELS = 2**26  # And their pixels: Pillow holds up to 8 bytes for each.


class BrokenImageError(ValueError):
    """A file that cannot be read as an image; the message names it and the remedy."""


class TooLargeImageError(BrokenImageError):
    """An image with more pixels than allowed; the message names it and the remedy."""


@dataclass(frozen=True, slots=True)
class Header:
    """Properties of an image file, known before its pixels are decoded."""

    is_gray: bool
    """Whether the image is gray."""
    num_pixels: int
    """Pixels that decoding holds in memory."""
    size: tuple[int, int]
    """Height and width, upright."""
    is_transparent: bool = False
    """Whether pixels may be transparent."""


@cache
def readable_endings() -> frozenset[str]:
    """Returns the endings of `FORMATS` that Pillow reads here, such as `.png`.

    AVIF depends on how Pillow was built; HEIF needs the package pillow-heif.
    """
    if importlib.util.find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()
    known = Image.registered_extensions()
    return frozenset(ending for ending, name in known.items() if name in FORMATS)


@contextmanager
def decoding_threads() -> Iterator[ThreadPoolExecutor]:
    """Starts a pool of threads in which only `max_megapixels` limits the size of an image.

    Pillow's own limit ignores that JPEGs are decoded at a fraction of their size.
    """
    bound = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        # Damaged metadata (EXIF) of a file with intact pixels does not matter.
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        Image.MAX_IMAGE_PIXELS = None
        try:
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                yield pool
        finally:
            Image.MAX_IMAGE_PIXELS = bound


def read_pixels(
    path: Path,
    form: ImageForm,
    channels: int,
    max_megapixels: int = MAX_IMAGE_MEGAPIXELS,
) -> NDArray[np.uint8]:
    """Reads the pixels of an image file.

    Args:
        path: A file of one of `FORMATS`, whatever its ending says.
        form: Size and background to bring them to.
        channels: 1 for gray, 3 for RGB.
        max_megapixels: Millions of pixels that decoding may hold in memory.

    Returns:
        uint8 (C, H, W); see `to_pixels`.

    Raises:
        BrokenImageError: The file cannot be opened or decoded.
        TooLargeImageError: It has too many pixels.
    """
    with _opened(path, form, max_megapixels) as (image, _, _):
        return to_pixels(image, form, channels)


def read_header(path: Path, form: ImageForm, max_megapixels: int = MAX_IMAGE_MEGAPIXELS) -> Header:
    """Reads the header of an image file; arguments and errors as of `read_pixels`."""
    with _opened(path, form, max_megapixels) as (image, size, held):
        copies = 2 if image.format in ("WEBP", "AVIF", "HEIF") else 1  # and Pillow's own pixels
        return Header(
            is_gray=image.mode in GRAY_MODES,
            num_pixels=copies * held,
            size=upright_size(image, size),
            is_transparent=image.mode in ALPHA_MODES or "transparency" in image.info,
        )


@contextmanager
def _opened(
    path: Path, form: ImageForm, max_megapixels: int
) -> Iterator[tuple[Image.Image, tuple[int, int], int]]:
    """Opens an image; yields it, its width and height, and the pixels that decoding holds."""
    try:
        with Image.open(path, formats=_formats()) as image:
            size = image.size
            shrink_on_load(image, form.size)
            is_shrunk = image.size != size and _is_sequential(image)
            held = math.prod(image.size if is_shrunk else size)
            if held > max_megapixels * 1_000_000:
                raise TooLargeImageError(
                    f"{printable(path)} must have at most {max_megapixels} megapixels, got "
                    f"{size[0]}x{size[1]}: scale it down"
                )
            yield image, size, held
    except BrokenImageError:
        raise
    except Exception as error:  # Pillow raises nearly anything on a damaged file
        if isinstance(error, UnidentifiedImageError):
            reason = "it is not a PNG, JPEG, WebP, BMP, TIFF, GIF, PPM or AVIF file"
        else:
            reason = getattr(error, "strerror", None) or one_line(error)
        raise BrokenImageError(
            f"{printable(path)} must be a readable image, but {reason}: replace or remove it"
        ) from error


def _is_sequential(image: Image.Image) -> bool:
    """Returns whether a JPEG has all its colours in one scan, from the headers before the first.

    Only then it is decoded row by row; else all coefficients are held in memory.
    """
    file = getattr(image, "fp", None)
    assert file is not None
    file.seek(2)
    colours = None
    while len(start := file.read(4)) == 4:
        marker, length = struct.unpack(">HH", start)
        if marker == 0xFFDA:
            return bool(file.read(1) == colours)
        content = file.read(max(0, length - 2))
        if marker in (0xFFC0, 0xFFC1):
            colours = content[5:6]
    return False


def read_all(
    pool: ThreadPoolExecutor,
    paths: Sequence[Path],
    read: Callable[[Path], T],
    num_pixels: Sequence[int] | None = None,
) -> Iterator[tuple[Path, T | BrokenImageError]]:
    """Yields each file with the result of `read`, or its error, in the order of `paths`.

    `num_pixels` (N,) are those that reading each file holds in memory; None for hardly any.
    """

    def attempt(path: Path) -> T | BrokenImageError:
        try:
            return read(path)
        except BrokenImageError as error:
            return error

    for window in _windows(num_pixels or [0] * len(paths)):
        files = paths[window]
        # The allocator keeps some memory of each thread: single large images use this thread's.
        results = map(attempt, files) if len(files) == 1 else pool.map(attempt, files)
        yield from zip(files, results, strict=True)


def _windows(num_pixels: Sequence[int]) -> Iterator[slice]:
    """Yields ranges of files of bounded number and pixels, or of a single large one."""
    start, held = 0, 0
    for index, pixels in enumerate(num_pixels):
        if index - start == WINDOW or (index > start and held + pixels > WINDOW_PIXELS):
            yield slice(start, index)
            start, held = index, 0
        held += pixels
    if num_pixels:
        yield slice(start, len(num_pixels))


@cache
def _formats() -> tuple[str, ...]:
    """Returns those of `FORMATS` that this Pillow supports; it refuses the names of others."""
    readable_endings()
    return tuple(name for name in FORMATS if name in Image.OPEN)
