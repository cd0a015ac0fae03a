"""CIFAR-10, read from disk or downloaded into the data folder."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.data.download import download, require_download
from pipelines.data.image_set import ImageSet
from pipelines.data.splitting import GivenSplits
from pipelines.files.names import one_line, printable

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # As given on the set's own page.
CIFAR10_TRAIN = tuple(f"data_batch_{batch}.bin" for batch in range(1, 6))
CIFAR10_TEST = ("test_batch.bin",)
CIFAR10_RECORD = 1 + 3 * 32 * 32
CIFAR10_BATCH = 10_000 * CIFAR10_RECORD

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


def load_cifar10(root: Path, *, may_download: bool) -> GivenSplits[ImageSet]:
    """Loads CIFAR-10, 50,000 training and 10,000 test images of 32x32 RGB.

    `cifar-10-batches-bin/` or `cifar-10-binary.tar.gz` is looked for in `cifar10` and in `root`
    itself. The binary version is read: torchvision reads the Python version, which is a pickle.
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
            raise FileNotFoundError(
                f"cifar10 needs {printable(path)}: fetch the binary version again"
            )
        yield path, path.read_bytes()


def _members_of(archive: Path) -> Iterator[tuple[Path, bytes]]:
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for name in (*CIFAR10_TRAIN, *CIFAR10_TEST):
                member = tar.getmember(f"cifar-10-batches-bin/{name}")
                file = tar.extractfile(member) if member.isreg() else None
                if file is None or member.size > CIFAR10_BATCH:
                    raise ValueError(f"{name} is not a file of at most {CIFAR10_BATCH:,} bytes")
                yield archive / name, file.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{printable(archive)} must be the binary version of CIFAR-10, but it cannot be read "
            f"({one_line(error)}): remove it, so that it is downloaded again"
        ) from error


def _cifar10_from(batches: Iterator[tuple[Path, bytes]]) -> GivenSplits[ImageSet]:
    """Joins batches of records (label, then red, green and blue plane)."""
    records = []
    for path, data in batches:
        if not data or len(data) % CIFAR10_RECORD:
            raise ValueError(
                f"{printable(path)} must hold whole records of {CIFAR10_RECORD} bytes, got "
                f"{len(data)} bytes: fetch the binary version of CIFAR-10 again"
            )
        records.append(np.frombuffer(data, np.uint8).reshape(-1, CIFAR10_RECORD))

    def image_set(parts: list[NDArray[np.uint8]]) -> ImageSet:
        rows = np.concatenate(parts)
        return ImageSet(rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].astype(np.int64))

    return GivenSplits(
        image_set(records[:-1]), test=image_set(records[-1:]), class_names=CIFAR10_CLASSES
    )
