import gzip
import os

import numpy as np
import pytest

from pipelines.benchmarks.peak_memory import rise_of_peak
from pipelines.data.idx import read_idx, read_labelled_idx

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def test_read_idx_gives_the_written_array(tmp_path, write_idx):
    np.testing.assert_array_equal(read_idx(write_idx(tmp_path / "a", IMAGES)), IMAGES)


def test_read_idx_unzips_whatever_the_name(tmp_path, write_idx):
    path = write_idx(tmp_path / "a", IMAGES)
    path.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(read_idx(path), IMAGES)


def test_read_idx_refuses_another_format(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"\x00\x00\x0d\x01\x00\x00\x00\x00")  # of floats
    with pytest.raises(ValueError, match=r"/a must be an IDX file .*, got 0x"):
        read_idx(path)


def test_read_idx_refuses_a_cut_header(tmp_path, write_idx):
    path = write_idx(tmp_path / "a", IMAGES)
    path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(ValueError, match=r"/a .*header"):
        read_idx(path)


def test_read_idx_refuses_missing_elements(tmp_path, write_idx):
    path = write_idx(tmp_path / "a", IMAGES)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"24 bytes .*\(2, 3, 4\), got no more than 23"):
        read_idx(path)


def test_read_idx_refuses_elements_too_many(tmp_path, write_idx):
    path = write_idx(tmp_path / "a", IMAGES)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ValueError, match="got more"):
        read_idx(path)


def test_read_idx_refuses_a_truncated_gzip(tmp_path, write_idx):
    path = write_idx(tmp_path / "a.gz", IMAGES)
    path.write_bytes(gzip.compress(path.read_bytes())[:-12])
    with pytest.raises(ValueError, match=r"a\.gz .* gzip"):
        read_idx(path)


def test_read_idx_refuses_a_damaged_gzip(tmp_path, write_idx):
    path = write_idx(tmp_path / "a.gz", IMAGES)
    data = bytearray(gzip.compress(path.read_bytes()))
    data[-6] ^= 1  # Inside the checksum.
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.gz .* gzip"):
        read_idx(path)


def test_read_labelled_idx_adds_the_channel_axis(tmp_path, write_idx):
    images = write_idx(tmp_path / "images", IMAGES)
    labels = write_idx(tmp_path / "labels", np.array([7, 1], np.uint8))
    result = read_labelled_idx(images, labels, 10)
    np.testing.assert_array_equal(result.images, IMAGES.reshape(2, 1, 3, 4))
    assert result.labels.tolist() == [7, 1]


def test_read_labelled_idx_refuses_swapped_files(tmp_path, write_idx):
    labels = write_idx(tmp_path / "labels", np.array([7, 1], np.uint8))
    with pytest.raises(ValueError, match=r"\(N, H, W\), got shape \(2,\)"):
        read_labelled_idx(labels, labels, 10)


def test_read_labelled_idx_refuses_a_label_too_few(tmp_path, write_idx):
    images = write_idx(tmp_path / "images", IMAGES)
    labels = write_idx(tmp_path / "labels", np.array([7], np.uint8))
    message = r"labels .* 2 images in images, got shape \(1,\)"
    with pytest.raises(ValueError, match=message):
        read_labelled_idx(images, labels, 10)


def test_read_labelled_idx_refuses_the_labels_of_another_set(tmp_path, write_idx):
    images = write_idx(tmp_path / "images", IMAGES)
    labels = write_idx(tmp_path / "labels", np.array([7, 10], np.uint8))
    message = r"labels .*\[0, 10\), got 10"
    with pytest.raises(ValueError, match=message):
        read_labelled_idx(images, labels, 10)


@pytest.mark.parametrize(
    ("pack", "sizes"),
    [
        (bytes, (2**32 - 1,) * 3),
        (bytes, (0, 2**32 - 1, 2**32 - 1)),
        (gzip.compress, (1,) * 65),
    ],
)
def test_read_idx_refuses_a_header_that_claims_what_the_file_cannot_hold(tmp_path, pack, sizes):
    header = bytes([0, 0, 8, len(sizes)]) + b"".join(size.to_bytes(4, "big") for size in sizes)
    (tmp_path / "a").write_bytes(pack(header))
    with pytest.raises(ValueError, match=r"/a must .* bytes"):
        read_idx(tmp_path / "a")


def test_read_idx_takes_no_memory_for_a_gzip_that_claims_more_than_deflate_can_hold(tmp_path):
    zeros = b"\0\0\x08\x03" + (6_000).to_bytes(4, "big") + (1_000).to_bytes(4, "big") * 2
    (tmp_path / "a").write_bytes(gzip.compress(zeros + bytes(50_000_000), compresslevel=1))

    def read():
        with pytest.raises(ValueError, match=r"6000000000 bytes .*, got no more than"):
            read_idx(tmp_path / "a")

    assert rise_of_peak(read) < 10  # megabytes


def test_read_idx_refuses_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "a")
    with pytest.raises(OSError, match="/a must be a regular file"):
        read_idx(tmp_path / "a")
