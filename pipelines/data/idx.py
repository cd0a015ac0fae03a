"""The IDX file format of MNIST and its relatives."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from pipelines.data.image_set import ImageSet
from pipelines.data.untrusted import read_array
from pipelines.files.names import one_line, printable
from pipelines.files.records import require_file

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTE = 0x08
MAX_DEFLATION = 1032  # times that deflate can shorten
MAX_UNZIPPED = 2**30  # bytes; the largest set of this format, EMNIST, has half of them


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads the array of an IDX file; gzip is recognised by the first bytes, not by the name.

    The format: two zero bytes, the element type (0x08 for unsigned bytes, the only one read here),
    the number of axes, one big-endian uint32 per axis, then the elements in C order.

    Raises:
        ValueError: The file is not IDX of unsigned bytes, or is truncated or too long.
    """
    require_file(path)
    with path.open("rb") as file:
        size = path.stat().st_size
        is_gzipped = file.read(2) == GZIP_MAGIC
        file.seek(0)
        try:
            if not is_gzipped:
                return _read_stream(file, path, size)
            with gzip.open(file) as unzipped:
                return _read_stream(unzipped, path, min(MAX_DEFLATION * size, MAX_UNZIPPED))
        except (EOFError, gzip.BadGzipFile, zlib.error, MemoryError) as error:
            raise ValueError(
                f"{printable(path)} must be a whole {'gzip' if is_gzipped else 'IDX'} file, but "
                f"{one_line(error)}: fetch it again"
            ) from error


def _read_stream(file: IO[bytes] | gzip.GzipFile, path: Path, most: int) -> NDArray[np.uint8]:
    """Reads the array of a file of at most `most` bytes, including its header."""
    name = printable(path)
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\x00\x00" or magic[2] != UNSIGNED_BYTE or not magic[3]:
        raise ValueError(
            f"{name} must be an IDX file of unsigned bytes (0x000008..), got 0x{magic.hex()}: "
            "fetch it again"
        )
    axes = magic[3]
    header = file.read(4 * axes)
    if len(header) < 4 * axes:
        raise ValueError(f"{name} ends within its header: fetch it again")
    shape = struct.unpack(f">{axes}I", header)
    size, room = math.prod(shape), most - 4 - len(header)
    wanted = f"{name} must hold {size} bytes for its shape {shape}"
    if size > room:
        raise ValueError(f"{wanted}, got no more than {room}: fetch it again")
    try:
        array = read_array(file, shape, np.dtype(np.uint8))
    except ValueError as error:
        raise ValueError(f"{wanted}, but {one_line(error)}: fetch it again") from error
    if file.read(1):
        raise ValueError(f"{wanted}, got more: fetch it again")
    return array


def read_labelled_idx(images_path: Path, labels_path: Path, num_classes: int) -> ImageSet:
    """Reads gray images (N, 1, H, W) and their labels (N,) of a pair of IDX files.

    Raises:
        ValueError: One of the files is broken, or they do not belong together.
    """
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3:
        raise ValueError(
            f"{printable(images_path)} must hold images (N, H, W), got shape {images.shape}: "
            "check that images and labels are not swapped"
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{printable(labels_path)} must hold one label for each of the {len(images)} images in "
            f"{images_path.name}, got shape {labels.shape}: fetch both again"
        )
    if labels.max(initial=0) >= num_classes:
        raise ValueError(
            f"{printable(labels_path)} must hold labels in [0, {num_classes}), got "
            f"{labels.max()}: the files are those of another set"
        )
    return ImageSet(images[:, None], labels.astype(np.int64))
