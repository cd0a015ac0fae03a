import gzip
import hashlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from pipelines.data.fashion_mnist_mini.build import FILE_NAME, build, first_of_each_class
from pipelines.data.load import EMBEDDED
from pipelines.data.mnist import DEBIAN_FASHION_MNIST


@pytest.fixture
def source(tmp_path, write_idx_set):
    """A tiny Fashion-MNIST: three training and two test images of each class."""
    images = write_idx_set(tmp_path, [*range(10), *range(9, -1, -1), *range(10)], [*range(10)] * 2)
    for path in list(tmp_path.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    return tmp_path, images


def test_embedded_set_is_balanced():
    with np.load(EMBEDDED) as arrays:
        assert np.bincount(arrays["labels"]).tolist() == [1000] * 10
        assert np.bincount(arrays["test_labels"]).tolist() == [200] * 10


def test_embedded_set_has_the_shape_it_promises():
    with np.load(EMBEDDED) as arrays:
        assert arrays["images"].shape == (10_000, 28, 28)
        assert arrays["test_images"].shape == (2_000, 28, 28)


def test_embedded_set_never_changes():
    with np.load(EMBEDDED) as arrays:
        digest = hashlib.sha256(arrays["images"].tobytes() + arrays["test_images"].tobytes())
    assert digest.hexdigest() == "67ac0de77cb2a9b5a6a638c2663b7e4f6cb555664a0cfd1063d3cb7b5eb6177f"


def test_embedded_set_has_no_image_twice():
    with np.load(EMBEDDED) as arrays:
        both = np.concatenate([arrays["images"], arrays["test_images"]])
    assert len({image.tobytes() for image in both}) == len(both)


def test_embedded_set_comes_with_its_licence():
    text = resources.files("pipelines.data.fashion_mnist_mini").joinpath("LICENSE").read_text()
    assert "Copyright (c) 2017 Zalando SE" in text
    assert "Permission is hereby granted, free of charge" in text


@pytest.mark.skipif(not DEBIAN_FASHION_MNIST.is_dir(), reason="dataset-fashion-mnist is missing")
def test_embedded_set_is_what_the_script_builds(tmp_path):
    build(DEBIAN_FASHION_MNIST, tmp_path / FILE_NAME)
    with np.load(EMBEDDED) as ours, np.load(tmp_path / FILE_NAME) as built:
        for name in ours.files:
            np.testing.assert_array_equal(ours[name], built[name])


def test_first_of_each_class_keeps_the_order_of_the_set():
    labels = np.array([*range(10), 3, 3, *range(10)])
    # Two of each class: of class 3 those at 3 and 10, of the others one in each run of ten.
    expected = [*range(11), 12, 13, 14, 16, 17, 18, 19, 20, 21]
    assert first_of_each_class(labels, 2).tolist() == expected


def test_first_of_each_class_refuses_a_rare_class():
    labels = np.array([*range(10), *range(9)])
    with pytest.raises(ValueError, match=r"at least 2 images of each class .*, got 1 of class 9"):
        first_of_each_class(labels, 2)


def test_build_takes_the_first_images_of_each_class(source, tmp_path):
    folder, (train, test) = source
    build(folder, tmp_path / "mini.npz", train_per_class=2, test_per_class=1)
    with np.load(tmp_path / "mini.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["images"], train[:20])
        np.testing.assert_array_equal(arrays["test_images"], test[:10])
        assert arrays["labels"].tolist() == [*range(10), *range(9, -1, -1)]


def test_build_twice_gives_the_same_bytes(source, tmp_path):
    files = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for file in files:
        build(source[0], file, train_per_class=2, test_per_class=1)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_build_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte\.gz"):
        build(Path(tmp_path), tmp_path / "mini.npz")
