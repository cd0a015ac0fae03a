"""The public image sets: found on disk, or else downloaded into the data folder."""

from __future__ import annotations

import importlib
import importlib.util
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.data.download import download, require_download
from pipelines.data.idx import read_labelled_idx
from pipelines.data.image_set import ImageSet
from pipelines.data.splitting import GivenSplits

FASHION_CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
DIGITS = tuple(map(str, range(10)))
CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # As given on the set's own page.
CIFAR10_TRAIN = tuple(f"data_batch_{batch}.bin" for batch in range(1, 6))
CIFAR10_TEST = ("test_batch.bin",)
CIFAR10_RECORD = 1 + 3 * 32 * 32

SVHN_FILES = ("train_32x32.mat", "test_32x32.mat")


def load_mnist(root: Path, *, may_download: bool) -> GivenSplits[ImageSet]:
    """Gives MNIST, 60,000 training and 10,000 test images of 28x28 gray digits.

    Args:
        root: data folder; looked for in `mnist`, torchvision's `MNIST/raw`, and itself.
        may_download: whether to download what is missing.

    Raises:
        FileNotFoundError: not found, and not allowed to download.
        RuntimeError: the download failed.
        ValueError: a file is damaged.
    """
    folders = [root / "mnist", root / "MNIST" / "raw", root]
    paths = _find_idx(folders) or _download_idx("mnist", "MNIST", folders, may_download)
    return _read_idx_set(paths, DIGITS)


def load_fashion_mnist(root: Path, *, may_download: bool) -> GivenSplits[ImageSet]:
    """Gives Fashion-MNIST, 60,000 training and 10,000 test images of 28x28 gray clothes.

    Args:
        root: data folder; looked for in `fashion-mnist`, torchvision's `FashionMNIST/raw`, itself,
            and then where Debian's package `dataset-fashion-mnist` puts it.
        may_download: whether to download what is missing.

    Raises:
        FileNotFoundError: not found, and not allowed to download.
        RuntimeError: the download failed.
        ValueError: a file is damaged.
    """
    folders = [root / "fashion-mnist", root / "FashionMNIST" / "raw", root, DEBIAN_FASHION_MNIST]
    paths = _find_idx(folders) or _download_idx(
        "fashion-mnist", "FashionMNIST", folders, may_download
    )
    return _read_idx_set(paths, FASHION_CLASSES)


def _find_idx(folders: list[Path]) -> list[Path] | None:
    """Gives the four files, gzipped or not, of the first folder that has them all."""
    for folder in folders:
        found = [
            next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)
            for name in IDX_FILES
        ]
        paths = [path for path in found if path is not None]
        if len(paths) == len(IDX_FILES):
            return paths
    return None


def _download_idx(
    source: str, torchvision_name: str, folders: list[Path], may_download: bool
) -> list[Path]:
    require_download(may_download, source, " ".join(IDX_FILES) + " (or .gz)", folders)
    dataset = getattr(importlib.import_module("torchvision.datasets"), torchvision_name)
    paths = []
    for name, md5 in dataset.resources:
        paths.append(folders[0] / name)
        if not paths[-1].is_file():
            download([mirror + name for mirror in dataset.mirrors], md5, paths[-1])
    return paths


def _read_idx_set(paths: list[Path], class_names: tuple[str, ...]) -> GivenSplits[ImageSet]:
    train_images, train_labels, test_images, test_labels = paths
    train = read_labelled_idx(train_images, train_labels)
    test = read_labelled_idx(test_images, test_labels)
    for path, part in ((train_labels, train), (test_labels, test)):
        largest = np.max(part.labels, initial=0)
        if largest >= len(class_names):
            raise ValueError(
                f"{path} must hold labels in [0, {len(class_names)}), got {largest}: the files "
                "are those of another set"
            )
    return GivenSplits(train, test=test, class_names=class_names)


def load_cifar10(root: Path, *, may_download: bool) -> GivenSplits[ImageSet]:
    """Gives CIFAR-10, 50,000 training and 10,000 test images of 32x32 RGB.

    This is the set's binary version: torchvision's own reader takes the Python version, which is a
    pickle, and nothing is ever unpickled here.

    Args:
        root: data folder; looked for as `cifar-10-batches-bin/` or `cifar-10-binary.tar.gz` in
            itself and in `cifar10`.
        may_download: whether to download what is missing.

    Raises:
        FileNotFoundError: not found, and not allowed to download.
        RuntimeError: the download failed.
        ValueError: a file is damaged.
    """
    folders = [root / "cifar10", root]
    for folder in folders:
        if (folder / "cifar-10-batches-bin").is_dir():
            return _cifar10_from(_files_of(folder / "cifar-10-batches-bin"))
    archives = [folder / "cifar-10-binary.tar.gz" for folder in folders]
    archive = next((path for path in archives if path.is_file()), None)
    if archive is None:
        archive = archives[0]
        require_download(may_download, "cifar10", archive.name, folders)
        download([CIFAR10_URL], CIFAR10_MD5, archive)
    return _cifar10_from(_members_of(archive))


def _files_of(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for name in (*CIFAR10_TRAIN, *CIFAR10_TEST):
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"cifar10 needs {path}: fetch the binary version again")
        yield path, path.read_bytes()


def _members_of(archive: Path) -> Iterator[tuple[Path, bytes]]:
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for name in (*CIFAR10_TRAIN, *CIFAR10_TEST):
                file = tar.extractfile(f"cifar-10-batches-bin/{name}")
                if file is None:
                    raise KeyError(f"{name} is not a file")
                yield archive / name, file.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError, KeyError) as error:
        raise ValueError(
            f"{archive} must be the binary version of CIFAR-10, but it cannot be read "
            f"({str(error).rstrip('.')}): remove it, so that it is downloaded again"
        ) from error


def _cifar10_from(batches: Iterator[tuple[Path, bytes]]) -> GivenSplits[ImageSet]:
    """Puts batches of records (label, then red, green and blue plane) together."""
    records = []
    for path, data in batches:
        if not data or len(data) % CIFAR10_RECORD:
            raise ValueError(
                f"{path} must hold whole records of {CIFAR10_RECORD} bytes, got {len(data)} bytes: "
                "fetch the binary version of CIFAR-10 again"
            )
        records.append(np.frombuffer(data, np.uint8).reshape(-1, CIFAR10_RECORD))

    def image_set(parts: list[NDArray[np.uint8]]) -> ImageSet:
        rows = np.concatenate(parts)
        return ImageSet(rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].astype(np.int64))

    return GivenSplits(
        image_set(records[:-1]), test=image_set(records[-1:]), class_names=CIFAR10_CLASSES
    )


def load_svhn(root: Path, *, may_download: bool) -> GivenSplits[ImageSet]:
    """Gives SVHN, 73,257 training and 26,032 test images of 32x32 RGB house numbers.

    Args:
        root: data folder; looked for in `svhn` and itself.
        may_download: whether to download what is missing.

    Raises:
        FileNotFoundError: not found, and not allowed to download.
        RuntimeError: scipy is not installed, or the download failed.
        ValueError: a file is damaged.
    """
    if importlib.util.find_spec("scipy") is None:
        raise RuntimeError(
            "svhn comes as MATLAB files, which need scipy to be read, and it is not installed: "
            "run pip install scipy"
        )
    folders = [root / "svhn", root]
    found = [folder for folder in folders if all((folder / name).is_file() for name in SVHN_FILES)]
    folder = found[0] if found else folders[0]
    if not found:
        require_download(may_download, "svhn", " ".join(SVHN_FILES), folders)
        addresses = importlib.import_module("torchvision.datasets").SVHN.split_list
        for split_name in ("train", "test"):
            url, name, md5 = addresses[split_name]
            if not (folder / name).is_file():
                download([url], md5, folder / name)
    train, test = (_read_svhn(folder / name) for name in SVHN_FILES)
    return GivenSplits(train, test=test, class_names=DIGITS)


def _read_svhn(path: Path) -> ImageSet:
    """Reads `X`, uint8 (H, W, C, N), and `y`, (N, 1) in 1..10 where 10 means the digit 0."""
    try:
        arrays = importlib.import_module("scipy.io").loadmat(path, variable_names=["X", "y"])
        pixels, labels = arrays["X"], arrays["y"].reshape(-1)
        images = np.ascontiguousarray(pixels.transpose(3, 2, 0, 1))
        return ImageSet(images, labels.astype(np.int64) % 10)
    except (ValueError, TypeError, KeyError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} must be a MATLAB file of SVHN, but it cannot be read ({error}): remove it, so "
            "that it is downloaded again"
        ) from error
