import gzip

import numpy as np
import pytest

from pipelines.data.idx import read_idx, read_labelled_idx

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def test_read_idx_gives_the_written_array(tmp_path, write_idx):
    np.testing.assert_array_equal(read_idx(write_idx(tmp_path / "a", IMAGES)), IMAGES)


def test_read_idx_unzips_whatever_the_name(tmp_path, write_idx):
    path = write_idx(tmp_path / "a", IMAGES)
    path.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(read_idx(path), IMAGES)


@pytest.mark.parametrize("data", [b"", b"\x00\x00", b"\x00\x00\x0d\x01\x00\x00\x00\x00", b"PK12"])
def test_read_idx_refuses_another_format(tmp_path, data):
    path = tmp_path / "a"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"/a must be an IDX file of unsigned bytes .*, got 0x"):
        read_idx(path)


def test_read_idx_refuses_a_cut_header(tmp_path, write_idx):
    path = write_idx(tmp_path / "a", IMAGES)
    path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(ValueError, match="/a ends within its header: fetch it again"):
        read_idx(path)


def test_read_idx_refuses_missing_elements(tmp_path, write_idx):
    path = write_idx(tmp_path / "a", IMAGES)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"24 bytes for its shape \(2, 3, 4\), got only 23: fetch"):
        read_idx(path)


def test_read_idx_refuses_elements_too_many(tmp_path, write_idx):
    path = write_idx(tmp_path / "a", IMAGES)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ValueError, match="got more: fetch it again"):
        read_idx(path)


def test_read_idx_refuses_a_truncated_gzip(tmp_path, write_idx):
    path = write_idx(tmp_path / "a.gz", IMAGES)
    path.write_bytes(gzip.compress(path.read_bytes())[:-12])
    with pytest.raises(
        ValueError, match=r"a\.gz must be a whole gzip file, but .*: fetch it again"
    ):
        read_idx(path)


def test_read_idx_refuses_a_damaged_gzip(tmp_path, write_idx):
    path = write_idx(tmp_path / "a.gz", IMAGES)
    data = bytearray(gzip.compress(path.read_bytes()))
    data[-6] ^= 1  # Inside the checksum.
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match=r"a\.gz must be a whole gzip file, but .*: fetch it again"
    ):
        read_idx(path)


def test_read_labelled_idx_adds_the_channel_axis(tmp_path, write_idx):
    images = write_idx(tmp_path / "images", IMAGES)
    labels = write_idx(tmp_path / "labels", np.array([7, 1], np.uint8))
    result = read_labelled_idx(images, labels, 10)
    np.testing.assert_array_equal(result.images, IMAGES.reshape(2, 1, 3, 4))
    assert result.labels.tolist() == [7, 1]


def test_read_labelled_idx_refuses_swapped_files(tmp_path, write_idx):
    labels = write_idx(tmp_path / "labels", np.array([7, 1], np.uint8))
    with pytest.raises(ValueError, match=r"must hold images \(N, H, W\), got shape \(2,\): check"):
        read_labelled_idx(labels, labels, 10)


def test_read_labelled_idx_refuses_a_label_too_few(tmp_path, write_idx):
    images = write_idx(tmp_path / "images", IMAGES)
    labels = write_idx(tmp_path / "labels", np.array([7], np.uint8))
    message = r"labels must hold one label for each of the 2 images in images, got shape \(1,\)"
    with pytest.raises(ValueError, match=message):
        read_labelled_idx(images, labels, 10)


def test_read_labelled_idx_refuses_the_labels_of_another_set(tmp_path, write_idx):
    images = write_idx(tmp_path / "images", IMAGES)
    labels = write_idx(tmp_path / "labels", np.array([7, 10], np.uint8))
    message = r"labels must hold labels in \[0, 10\), got 10: the files are those of another set"
    with pytest.raises(ValueError, match=message):
        read_labelled_idx(images, labels, 10)
