import numpy as np
import pytest

from pipelines.data import mnist
from pipelines.data.mnist import load_fashion_mnist, load_mnist


@pytest.fixture(autouse=True)
def no_other_place(monkeypatch, tmp_path):
    """Hides the Debian package and forbids the network."""
    monkeypatch.setattr(mnist, "DEBIAN_FASHION_MNIST", tmp_path / "debian")

    def refuse(*_):
        raise AssertionError("a download was attempted")

    monkeypatch.setattr(mnist, "download", refuse)


def test_load_mnist_finds_the_files(tmp_path, write_idx_set):
    train, test = write_idx_set(tmp_path / "mnist", [3, 1, 4], [1, 5])
    given = load_mnist(tmp_path, may_download=True)
    np.testing.assert_array_equal(given.train.images[:, 0], train)
    np.testing.assert_array_equal(given.test.images[:, 0], test)
    assert given.train.labels.tolist() == [3, 1, 4]
    assert given.test.labels.tolist() == [1, 5]


@pytest.mark.parametrize("place", ["FashionMNIST/raw", "debian"])
def test_load_fashion_mnist_finds_the_files(tmp_path, write_idx_set, place):
    train, _ = write_idx_set(tmp_path / place, [9, 0], [1])
    given = load_fashion_mnist(tmp_path, may_download=True)
    np.testing.assert_array_equal(given.train.images[:, 0], train)
    assert given.class_names[9] == "ankle boot"


def test_load_fashion_mnist_prefers_the_data_folder(tmp_path, write_idx_set):
    write_idx_set(tmp_path / "debian", [1, 1], [1])
    write_idx_set(tmp_path / "fashion-mnist", [2, 2, 2], [2])
    assert load_fashion_mnist(tmp_path, may_download=True).train.labels.tolist() == [2, 2, 2]


def test_load_mnist_passes_over_an_incomplete_folder(tmp_path, write_idx_set):
    write_idx_set(tmp_path / "mnist", [1], [1])
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte").unlink()
    write_idx_set(tmp_path / "MNIST" / "raw", [2], [2])
    assert load_mnist(tmp_path, may_download=True).train.labels.tolist() == [2]


@pytest.mark.parametrize(
    ("load", "source"), [(load_mnist, "mnist"), (load_fashion_mnist, "fashion-mnist")]
)
def test_load_without_download_says_what_to_put_where(tmp_path, write_idx_set, load, source):
    write_idx_set(tmp_path, [1], [1])  # in the data folder itself: of which set is not known
    message = rf"train-images-idx3-ubyte.*{tmp_path}/{source}, .*--data\.download"
    with pytest.raises(FileNotFoundError, match=message):
        load(tmp_path, may_download=False)


@pytest.mark.parametrize(
    ("load", "folder"), [(load_mnist, "mnist"), (load_fashion_mnist, "fashion-mnist")]
)
def test_load_downloads_the_idx_files_that_are_missing(tmp_path, monkeypatch, load, folder):
    asked = []
    monkeypatch.setattr(mnist, "download", lambda urls, _, path: asked.append((urls, path)))
    with pytest.raises(FileNotFoundError, match="train-images"):  # Nothing was brought.
        load(tmp_path, may_download=True)
    assert [path for _, path in asked] == [
        tmp_path / folder / f"{name}.gz" for name in mnist.IDX_FILES
    ]
    assert all(url.endswith(path.name) for urls, path in asked for url in urls)
