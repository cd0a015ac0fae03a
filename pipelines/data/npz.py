"""Images and labels of an npz file."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.config import MAX_MEMORY_MIB
from pipelines.data.image_set import ImageSet
from pipelines.data.splitting import GivenSplits
from pipelines.data.untrusted import read_array
from pipelines.files.names import listed, one_line, printable
from pipelines.files.records import require_file

KEYS = ("images", "labels", "test_images", "test_labels")
MAX_CLASSES = 2**16
MAX_RATIO = 16  # Times its own size that a file may unpack to, whatever the memory limit.


def read_npz(
    path: Path, class_names: tuple[str, ...] = (), *, max_memory_mib: int = MAX_MEMORY_MIB
) -> GivenSplits[ImageSet]:
    """Reads the images of an npz file and its test split, if any; nothing in it is ever unpickled.

    Args:
        path: A file with `images`, uint8 (N, H, W) or (N, H, W, C), and optionally `labels`,
            integers (N,), `test_images` and `test_labels`.
        class_names: Name of each class; () names the classes by their number.
        max_memory_mib: Largest unpacked size, if that is more than `MAX_RATIO` times the file's own
            size.

    Raises:
        TypeError: Images are not uint8 or labels are not integers.
        ValueError: It is no npz file, too large, has a damaged or unknown entry or a wrong
            shape, or labels that do not fit.
    """
    arrays, file = _read_arrays(path, max_memory_mib), printable(path)
    train = _image_set(file, arrays, "")
    test = _image_set(file, arrays, "test_") if "test_images" in arrays else None
    if test is None and "test_labels" in arrays:
        raise ValueError(f"{file} has test_labels without test_images: add the images")
    if test is not None and (test.labels is None) != (train.labels is None):
        raise ValueError(
            f"{file} must have labels for both or neither of images and test_images: add the "
            "missing ones"
        )
    if test is not None and test.image_shape != train.image_shape:
        raise ValueError(
            f"{file} must have images and test_images of one shape (C, H, W), got "
            f"{train.image_shape} and {test.image_shape}: resize one of them"
        )
    if train.labels is None:
        return GivenSplits(train, test=test)
    largest = max(
        int(part.labels.max()) for part in (train, test) if part and part.labels is not None
    )
    return GivenSplits(
        train, test=test, class_names=class_names or tuple(map(str, range(largest + 1)))
    )


def _read_arrays(path: Path, max_memory_mib: int) -> dict[str, NDArray[Any]]:
    require_file(path)
    with _naming_damage(path, "the archive"):
        archive = zipfile.ZipFile(path)
    with archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        _check_members(path, members, max_memory_mib)
        arrays = {}
        for name, info in members.items():
            with _naming_damage(path, name):
                arrays[name] = _read_member(archive, info)
    return arrays


@contextmanager
def _naming_damage(path: Path, part: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # zipfile and NumPy raise nearly anything on a damaged file
        raise ValueError(
            f"{printable(path)} must be an npz file of plain arrays, but {part} cannot be read "
            f"({one_line(error)}): write it again with numpy.savez"
        ) from error


def _check_members(path: Path, members: Mapping[str, zipfile.ZipInfo], max_memory_mib: int) -> None:
    """Refuses other arrays, and too much data, before anything is unpacked."""
    if "images" not in members or not members.keys() <= set(KEYS):
        raise ValueError(
            f"{printable(path)} must hold images and may hold labels, test_images and test_labels, "
            f"got {listed(sorted(members)) or 'nothing'}: rename or remove its arrays"
        )
    unpacked = sum(info.file_size for info in members.values())
    if unpacked > max(max_memory_mib * 2**20, MAX_RATIO * path.stat().st_size):
        raise ValueError(
            f"{printable(path)} must unpack to at most {max_memory_mib} MiB or {MAX_RATIO} times "
            f"its own size, got {unpacked / 2**20:,.0f} MiB: raise --data.max-memory-mib, or write "
            "it again with numpy.savez"
        )


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Reads an array whose header agrees with the size of its file."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Others unpack a block at once, which may be a million times longer than what it came from.
        raise ValueError("it is compressed in a way in which NumPy writes no arrays")
    with archive.open(info) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about how the header is spelt
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("it is not of version 1.0 of the npy format")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.hasobject or not dtype.itemsize:
            raise ValueError(f"Object arrays are not read, got {dtype}")
        size, held = math.prod(shape) * dtype.itemsize, info.file_size - file.tell()
        if size != held or min(shape, default=0) < 0:
            raise ValueError(f"shape {shape} of {dtype} needs {size} bytes, got {held}")
        array = read_array(file, shape[::-1] if is_fortran else shape, dtype)
    return array.T if is_fortran else array


def _image_set(file: str, arrays: dict[str, NDArray[np.generic]], prefix: str) -> ImageSet:
    name = f"{prefix}images"
    images = arrays[name]
    if images.dtype != np.uint8:
        raise TypeError(
            f"{name} in {file} must be uint8 in 0..255, got {images.dtype}: scale them and convert "
            "them with .astype(numpy.uint8)"
        )
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise ValueError(
            f"{name} in {file} must be (N, H, W) or (N, H, W, C) and not empty, got shape "
            f"{images.shape}: reshape them"
        )
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise ValueError(
            f"{name} in {file} must have channels last, (N, H, W, C), got shape {images.shape}: "
            "move them with numpy.moveaxis(images, 1, -1)"
        )
    pixels = images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)
    labels = arrays.get(f"{prefix}labels")
    if labels is not None:
        labels = _check_labels(file, f"{prefix}labels", labels, len(images))
    return ImageSet(np.ascontiguousarray(pixels.view(np.uint8)), labels)


def _check_labels(
    file: str, name: str, labels: NDArray[np.generic], count: int
) -> NDArray[np.int64]:
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(
            f"{name} in {file} must be integers, got {labels.dtype}: convert them to class numbers"
        )
    if labels.shape != (count,):
        raise ValueError(
            f"{name} in {file} must be one per image, ({count},), got shape {labels.shape}: "
            "labels and images do not belong together"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= MAX_CLASSES:
        raise ValueError(
            f"{name} in {file} must be in [0, {MAX_CLASSES}), got {labels.min()} to "
            f"{labels.max()}: number the classes from 0"
        )
    return labels.astype(np.int64)
