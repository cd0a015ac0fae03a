import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data.data_record import DataRecord, SplitSizes
from pipelines.runs.config import RunConfig
from pipelines.runs.directory import RunDirectory


def idx_bytes(array):
    """The IDX format, written down a second time from its description."""
    sizes = b"".join(struct.pack(">I", size) for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def write_idx():
    def write(path: Path, array: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(idx_bytes(array))
        return path

    return write


@pytest.fixture
def write_idx_set(write_idx):
    """Writes the four files of a set; returns the images of train and test."""

    def write(folder: Path, train_labels: list[int], test_labels: list[int]):
        generator = np.random.default_rng(3)
        sets = []
        for prefix, labels in (("train", train_labels), ("t10k", test_labels)):
            images = generator.integers(0, 256, (len(labels), 4, 5), dtype=np.uint8)
            write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
            write_idx(folder / f"{prefix}-labels-idx1-ubyte", np.array(labels, np.uint8))
            sets.append(images)
        return sets

    return write


@pytest.fixture
def write_image():
    """Writes an image of one colour and gives its path."""

    def write(path: Path, color=(10, 20, 30), size=(6, 4), mode="RGB", **options) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, color).save(path, **options)
        return path

    return write


@pytest.fixture
def tree(tmp_path):
    """Makes empty files; the tree is read without opening them."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


@pytest.fixture
def begin_run():
    """Makes a run directory as a training does, with an image in it."""
    data = DataRecord(
        image_shape=(1, 4, 4),
        num_images=SplitSizes(train=8, validation=2, test=3),
        num_classes=None,
        class_names=(),
        train_images_per_class=(),
        fingerprint="0123",
    )

    def begin(path: Path) -> None:
        RunDirectory(path).begin(RunConfig(), data)
        Image.new("L", (4, 4)).save(path / "samples.png")

    return begin
