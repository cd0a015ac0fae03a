import tarfile

import numpy as np
import pytest

from pipelines.data import cifar10
from pipelines.data.cifar10 import CIFAR10_TEST, CIFAR10_TRAIN, load_cifar10


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a download was attempted")

    monkeypatch.setattr(cifar10, "download", refuse)


def test_load_cifar10_without_download_says_what_to_put_where(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"cifar-10-binary\.tar\.gz.*{tmp_path}"):
        load_cifar10(tmp_path, may_download=False)


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
    with pytest.raises(ValueError, match=r"binary\.tar\.gz"):
        load_cifar10(tmp_path, may_download=False)


def test_load_cifar10_refuses_a_cut_batch(tmp_path, cifar_folder):
    path = cifar_folder / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"data_batch_3\.bin .* 3073 .* 6145"):
        load_cifar10(tmp_path, may_download=False)


def test_load_cifar10_names_a_missing_batch(tmp_path, cifar_folder):
    (cifar_folder / "data_batch_2.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_2\.bin"):
        load_cifar10(tmp_path, may_download=False)
