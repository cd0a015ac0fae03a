"""Reading images and labels from an npz file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.data.image_set import ImageSet
from pipelines.data.splitting import GivenSplits

KEYS = ("images", "labels", "test_images", "test_labels")
MAX_CLASSES = 2**16


def read_npz(path: Path, class_names: tuple[str, ...] = ()) -> GivenSplits[ImageSet]:
    """Gives the images of an npz file; nothing in it is ever unpickled.

    Args:
        path: a file with `images`, uint8 (N, H, W) or (N, H, W, C), and optionally `labels`,
            integers (N,), `test_images` and `test_labels`.
        class_names: name of each class; () names the classes by their number.

    Returns:
        The images with their labels, and the test split where there is one.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: images that are not uint8 or labels that are not integers.
        ValueError: not an npz file, a damaged or unknown entry, a wrong shape, or labels that do
            not fit.
    """
    arrays = _read_arrays(path)
    unknown = sorted(set(arrays) - set(KEYS))
    if "images" not in arrays or unknown:
        raise ValueError(
            f"{path} must hold images and may hold labels, test_images and test_labels, got "
            f"{', '.join(sorted(arrays)) or 'nothing'}: rename or remove its arrays"
        )
    train = _image_set(path, arrays, "")
    test = _image_set(path, arrays, "test_") if "test_images" in arrays else None
    if test is None and "test_labels" in arrays:
        raise ValueError(f"{path} has test_labels without test_images: add the images")
    if test is not None and (test.labels is None) != (train.labels is None):
        raise ValueError(
            f"{path} must have labels for both or neither of images and test_images: add the "
            "missing ones"
        )
    if test is not None and test.image_shape != train.image_shape:
        raise ValueError(
            f"{path} must have images and test_images of one shape (C, H, W), got "
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


def _read_arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    if not path.is_file():
        raise FileNotFoundError(f"the npz file {path} does not exist: check the path")
    name = "the archive"
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                name = member.removesuffix(".npy")
                with archive.open(member) as file:
                    arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, MemoryError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise ValueError(
            f"{path} must be an npz file of plain arrays, but {name} cannot be read ({reason}): "
            "write it again with numpy.savez"
        ) from error
    return arrays


def _image_set(path: Path, arrays: dict[str, NDArray[np.generic]], prefix: str) -> ImageSet:
    name = f"{prefix}images"
    images = arrays[name]
    if images.dtype != np.uint8:
        raise TypeError(
            f"{name} in {path} must be uint8 in 0..255, got {images.dtype}: scale them and convert "
            "them with .astype(numpy.uint8)"
        )
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise ValueError(
            f"{name} in {path} must be (N, H, W) or (N, H, W, C) and not empty, got shape "
            f"{images.shape}: reshape them"
        )
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise ValueError(
            f"{name} in {path} must have channels last, (N, H, W, C), got shape {images.shape}: "
            "move them with numpy.moveaxis(images, 1, -1)"
        )
    pixels = images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)
    labels = arrays.get(f"{prefix}labels")
    if labels is not None:
        labels = _check_labels(path, f"{prefix}labels", labels, len(images))
    return ImageSet(np.ascontiguousarray(pixels.view(np.uint8)), labels)


def _check_labels(
    path: Path, name: str, labels: NDArray[np.generic], count: int
) -> NDArray[np.int64]:
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(
            f"{name} in {path} must be integers, got {labels.dtype}: convert them to class numbers"
        )
    if labels.shape != (count,):
        raise ValueError(
            f"{name} in {path} must be one per image, ({count},), got shape {labels.shape}: "
            "labels and images do not belong together"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= MAX_CLASSES:
        raise ValueError(
            f"{name} in {path} must be in [0, {MAX_CLASSES}), got {labels.min()} to "
            f"{labels.max()}: number the classes from 0"
        )
    return labels.astype(np.int64)
