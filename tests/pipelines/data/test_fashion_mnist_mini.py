import gzip
import hashlib

import numpy as np
import pytest
from build_fashion_mnist_mini import build

from pipelines.data.load import EMBEDDED
from pipelines.data.mnist import DEBIAN_FASHION_MNIST


def test_embedded_set_is_balanced():
    with np.load(EMBEDDED) as arrays:
        assert np.bincount(arrays["labels"]).tolist() == [1000] * 10
        assert np.bincount(arrays["test_labels"]).tolist() == [200] * 10


def test_embedded_set_never_changes():
    with np.load(EMBEDDED) as arrays:
        assert arrays["images"].shape == (10_000, 28, 28)
        digest = hashlib.sha256(arrays["images"].tobytes() + arrays["test_images"].tobytes())
    assert digest.hexdigest() == "67ac0de77cb2a9b5a6a638c2663b7e4f6cb555664a0cfd1063d3cb7b5eb6177f"


def test_embedded_set_comes_with_its_licence():
    text = EMBEDDED.with_name("LICENSE").read_text()
    assert "Copyright (c) 2017 Zalando SE" in text
    assert "Permission is hereby granted, free of charge" in text


@pytest.mark.skipif(not DEBIAN_FASHION_MNIST.is_dir(), reason="dataset-fashion-mnist is missing")
def test_embedded_set_is_what_the_script_builds(tmp_path):
    build(DEBIAN_FASHION_MNIST, tmp_path / "mini.npz")
    with np.load(EMBEDDED) as ours, np.load(tmp_path / "mini.npz") as built:
        for name in ours.files:
            np.testing.assert_array_equal(ours[name], built[name])


def test_build_takes_the_first_images_of_each_class(write_idx_set, tmp_path):
    train_labels = [*range(10), *range(9, -1, -1), *range(10)]
    train, test = write_idx_set(tmp_path, train_labels, [*range(10)] * 2)
    for path in list(tmp_path.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    build(tmp_path, tmp_path / "mini.npz", train_per_class=2, test_per_class=1)
    with np.load(tmp_path / "mini.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["images"], train[:20])
        np.testing.assert_array_equal(arrays["test_images"], test[:10])
        assert arrays["labels"].tolist() == train_labels[:20]
