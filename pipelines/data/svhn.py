"""SVHN, read from disk or downloaded into the data folder."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import numpy as np

from pipelines.data.download import download, require_download
from pipelines.data.image_set import ImageSet
from pipelines.data.splitting import GivenSplits
from pipelines.files.names import one_line, printable

SVHN_FILES = ("train_32x32.mat", "test_32x32.mat")


def load_svhn(root: Path, *, may_download: bool) -> GivenSplits[ImageSet]:
    """Loads SVHN, 73,257 training and 26,032 test images of 32x32 RGB house numbers.

    The files are looked for in `svhn` and in `root` itself.

    Raises:
        RuntimeError: scipy is not installed.
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
    return GivenSplits(train, test=test, class_names=tuple(map(str, range(10))))


def _read_svhn(path: Path) -> ImageSet:
    """Reads `X`, uint8 (H, W, C, N), and `y`, (N, 1) in 1..10 where 10 means the digit 0."""
    try:
        arrays = importlib.import_module("scipy.io").loadmat(path, variable_names=["X", "y"])
        pixels, labels = arrays["X"], arrays["y"].reshape(-1)
        images = np.ascontiguousarray(pixels.transpose(3, 2, 0, 1))
        return ImageSet(images, labels.astype(np.int64) % 10)
    except Exception as error:  # SciPy raises nearly anything on a damaged file
        raise ValueError(
            f"{printable(path)} must be a MATLAB file of SVHN, but it cannot be read "
            f"({one_line(error)}): remove it, so that it is downloaded again"
        ) from error
