"""MNIST and Fashion-MNIST, read from disk or downloaded into the data folder."""

from __future__ import annotations

import importlib
from pathlib import Path

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

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def load_mnist(root: Path, *, may_download: bool) -> GivenSplits[ImageSet]:
    """Loads MNIST, 60,000 training and 10,000 test images of 28x28 gray digits.

    The files are looked for in `mnist` and torchvision's `MNIST/raw`, not in `root` itself: those
    of Fashion-MNIST have the same names.
    """
    folders = [root / "mnist", root / "MNIST" / "raw"]
    paths = _find_idx(folders) or _download_idx("mnist", "MNIST", folders, may_download)
    return _read_idx_set(paths, DIGITS)


def load_fashion_mnist(root: Path, *, may_download: bool) -> GivenSplits[ImageSet]:
    """Loads Fashion-MNIST, 60,000 training and 10,000 test images of 28x28 gray clothes.

    The files are looked for in `fashion-mnist`, torchvision's `FashionMNIST/raw` and the folder of
    Debian's package `dataset-fashion-mnist`.
    """
    folders = [root / "fashion-mnist", root / "FashionMNIST" / "raw", DEBIAN_FASHION_MNIST]
    paths = _find_idx(folders) or _download_idx(
        "fashion-mnist", "FashionMNIST", folders, may_download
    )
    return _read_idx_set(paths, FASHION_CLASSES)


def _find_idx(folders: list[Path]) -> list[Path] | None:
    """Returns the four files, gzipped or not, of the first folder that has them all."""
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
    num_classes = len(class_names)
    return GivenSplits(
        train=read_labelled_idx(train_images, train_labels, num_classes),
        test=read_labelled_idx(test_images, test_labels, num_classes),
        class_names=class_names,
    )
