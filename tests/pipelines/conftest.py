"""One tiny trained run for all tests of the commands, and the tiny data it was trained on."""

import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_runs import TINY, command, one_thread

from pipelines.data.config import DataConfig
from pipelines.data.load import load_splits
from pipelines.evaluation.metrics import feature_networks


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tiny tensors do not wait for other threads, above all where other programs are busy."""
    with one_thread():
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_efficientnet():
    """As where the extra `features` is not installed: it takes seconds per evaluation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_networks, "efficientnet_weights", lambda: None)
        yield


def two_kinds_of_images(count, height, width, channels):
    """uint8 (N, H, W, C) of a noisy tone, the upper half brighter in class 1, and the classes."""
    generator = np.random.default_rng(height * width)
    labels = np.arange(count) % 2
    tones = generator.integers(40, 120, (count, 1, 1, channels))
    images = tones + generator.integers(0, 40, (count, height, width, channels))
    images[:, : height // 2] += 80 * labels[:, None, None, None]
    return images.astype(np.uint8), labels


@pytest.fixture(scope="session")
def rgb_file(tmp_path_factory):
    """60 labelled RGB images of 8x10."""
    images, labels = two_kinds_of_images(60, 8, 10, 3)
    path = tmp_path_factory.mktemp("data") / "rgb.npz"
    np.savez(path, images=images, labels=labels)
    return path


@pytest.fixture(scope="session")
def splits(rgb_file):
    """The splits of `rgb_file` by name, as `TINY` makes them."""
    return load_splits(DataConfig(source=f"npz:{rgb_file}", validation_fraction=0.05)).by_name


@pytest.fixture(scope="session")
def gray_file(tmp_path_factory):
    """60 gray images of 7x9 without labels."""
    images, _ = two_kinds_of_images(60, 7, 9, 1)
    path = tmp_path_factory.mktemp("data") / "gray.npz"
    np.savez(path, images=images[..., 0])
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of 40 RGB images of 8x10 in the classes `cat` and `dog`."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    images, labels = two_kinds_of_images(40, 8, 10, 3)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(folder / ("cat", "dog")[label] / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="session")
def rgb_run(tmp_path_factory, rgb_file):
    """A finished run of `train_all` on `rgb_file`; copy it before changing anything."""
    run = tmp_path_factory.mktemp("trained") / "runs" / "rgb"
    command("train_all", *TINY, "--data.source", f"npz:{rgb_file}", "--out", run)
    return run


@pytest.fixture
def run(tmp_path, rgb_run):
    """A copy of `rgb_run` for one test to change."""
    shutil.copytree(rgb_run, tmp_path / "run")
    return tmp_path / "run"
