import importlib.util
import tarfile
import types
from importlib.machinery import ModuleSpec

import numpy as np
import pytest

from pipelines.data import named_sets
from pipelines.data.named_sets import (
    CIFAR10_TEST,
    CIFAR10_TRAIN,
    load_cifar10,
    load_fashion_mnist,
    load_mnist,
    load_svhn,
)


@pytest.fixture(autouse=True)
def no_other_place(monkeypatch, tmp_path):
    """Hides the Debian package and forbids the network."""
    monkeypatch.setattr(named_sets, "DEBIAN_FASHION_MNIST", tmp_path / "debian")

    def refuse(*_):
        raise AssertionError("a download was attempted")

    monkeypatch.setattr(named_sets, "download", refuse)


@pytest.mark.parametrize("place", ["mnist", "MNIST/raw", "."])
def test_load_mnist_finds_the_files(tmp_path, write_idx_set, place):
    train, test = write_idx_set(tmp_path / place, [3, 1, 4], [1, 5])
    given = load_mnist(tmp_path, may_download=True)
    np.testing.assert_array_equal(given.train.images[:, 0], train)
    np.testing.assert_array_equal(given.test.images[:, 0], test)
    assert given.train.labels.tolist() == [3, 1, 4]
    assert given.test.labels.tolist() == [1, 5]


@pytest.mark.parametrize("place", ["fashion-mnist", "FashionMNIST/raw", ".", "debian"])
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
    ("load", "files"),
    [
        (load_mnist, "mnist needs train-images-idx3-ubyte"),
        (load_fashion_mnist, "fashion-mnist needs train-images-idx3-ubyte"),
        (load_cifar10, r"cifar10 needs cifar-10-binary\.tar\.gz"),
        (load_svhn, r"svhn needs train_32x32\.mat test_32x32\.mat"),
    ],
)
def test_load_without_download_says_what_to_put_where(tmp_path, monkeypatch, load, files):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    message = rf"{files}.* in one of {tmp_path}.*: put them there, allow --data\.download, or use"
    with pytest.raises(FileNotFoundError, match=message):
        load(tmp_path, may_download=False)


@pytest.mark.parametrize(
    ("load", "folder", "count"),
    [(load_mnist, "mnist", 4), (load_fashion_mnist, "fashion-mnist", 4)],
)
def test_load_downloads_the_idx_files_that_are_missing(tmp_path, monkeypatch, load, folder, count):
    asked = []
    monkeypatch.setattr(named_sets, "download", lambda urls, _, path: asked.append((urls, path)))
    with pytest.raises(FileNotFoundError):  # The download above brings nothing.
        load(tmp_path, may_download=True)
    assert [path for _, path in asked] == [
        tmp_path / folder / f"{name}.gz" for name in named_sets.IDX_FILES
    ]
    assert all(url.endswith(path.name) for urls, path in asked for url in urls)
    assert len(asked) == count


def cifar_batches():
    """Six batches of two records each, made from the format's description."""
    generator = np.random.default_rng(4)
    batches = {}
    for index, name in enumerate((*CIFAR10_TRAIN, *CIFAR10_TEST)):
        images = generator.integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
        data = b"".join(bytes([index]) + image.tobytes() for image in images)
        batches[name] = (images, data)
    return batches


@pytest.fixture
def cifar_folder(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name, (_, data) in cifar_batches().items():
        (folder / name).write_bytes(data)
    return folder


def check_cifar(given):
    batches = cifar_batches()
    train = np.concatenate([batches[name][0] for name in CIFAR10_TRAIN])
    np.testing.assert_array_equal(given.train.images, train)
    np.testing.assert_array_equal(given.test.images, batches[CIFAR10_TEST[0]][0])
    assert given.train.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert given.test.labels.tolist() == [5, 5]
    assert given.class_names[5] == "dog"


@pytest.mark.usefixtures("cifar_folder")
def test_load_cifar10_reads_the_unpacked_batches(tmp_path):
    check_cifar(load_cifar10(tmp_path, may_download=False))


def pack(tmp_path, cifar_folder):
    archive = tmp_path / "cifar10" / "cifar-10-binary.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(cifar_folder, cifar_folder.name)
    for path in cifar_folder.iterdir():
        path.unlink()
    cifar_folder.rmdir()
    return archive


def test_load_cifar10_reads_the_archive(tmp_path, cifar_folder):
    pack(tmp_path, cifar_folder)
    check_cifar(load_cifar10(tmp_path, may_download=False))


def test_load_cifar10_refuses_a_truncated_archive(tmp_path, cifar_folder):
    archive = pack(tmp_path, cifar_folder)
    archive.write_bytes(archive.read_bytes()[:20_000])
    message = r"binary\.tar\.gz must be the binary version of CIFAR-10, but .*: remove it, so that"
    with pytest.raises(ValueError, match=message):
        load_cifar10(tmp_path, may_download=False)


def test_load_cifar10_refuses_another_archive(tmp_path, cifar_folder):
    (cifar_folder / "test_batch.bin").unlink()
    pack(tmp_path, cifar_folder)
    with pytest.raises(
        ValueError, match=r"must be the binary version of CIFAR-10, but .*test_batch"
    ):
        load_cifar10(tmp_path, may_download=False)


def test_load_cifar10_refuses_a_cut_batch(tmp_path, cifar_folder):
    path = cifar_folder / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    message = r"data_batch_3\.bin must hold whole records of 3073 bytes, got 6145 bytes: fetch"
    with pytest.raises(ValueError, match=message):
        load_cifar10(tmp_path, may_download=False)


def test_load_cifar10_names_a_missing_batch(tmp_path, cifar_folder):
    (cifar_folder / "data_batch_2.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"needs .*data_batch_2\.bin: fetch the binary"):
        load_cifar10(tmp_path, may_download=False)


def test_load_svhn_without_scipy_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RuntimeError, match=r"need scipy .* not installed: run pip install scipy"):
        load_svhn(tmp_path, may_download=True)


@pytest.fixture
def matlab(monkeypatch, tmp_path):
    """Stands in for scipy.io, which is not a dependency: files hold what the dict says."""
    contents = {}

    def loadmat(path, variable_names):
        assert variable_names == ["X", "y"]
        if path.name not in contents:
            raise ValueError("Unknown mat file type")
        return contents[path.name]

    modules = {"scipy": types.ModuleType("scipy"), "scipy.io": types.ModuleType("scipy.io")}
    modules["scipy.io"].loadmat = loadmat
    for name, module in modules.items():
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(importlib.sys.modules, name, module)
    for name in named_sets.SVHN_FILES:
        (tmp_path / name).touch()
    return contents


def test_load_svhn_puts_the_images_first_and_ten_is_zero(tmp_path, matlab):
    pixels = np.random.default_rng(5).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    labels = np.array([[1], [10], [9], [2]], np.uint8)
    for name in named_sets.SVHN_FILES:
        matlab[name] = {"X": pixels, "y": labels}
    given = load_svhn(tmp_path, may_download=False)
    assert given.test.labels.tolist() == [1, 0, 9, 2]
    for index in range(4):
        expected = np.moveaxis(pixels[..., index], -1, 0)
        np.testing.assert_array_equal(given.train.images[index], expected)


@pytest.mark.usefixtures("matlab")
def test_load_svhn_names_a_damaged_file(tmp_path):
    message = r"train_32x32\.mat must be a MATLAB file of SVHN, but .*Unknown mat .*: remove it"
    with pytest.raises(ValueError, match=message):
        load_svhn(tmp_path, may_download=False)
