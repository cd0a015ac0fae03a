import io
import os
import zipfile

import numpy as np
import pytest

from pipelines.data.npz import MAX_CLASSES, read_npz

IMAGES = np.arange(48, dtype=np.uint8).reshape(4, 3, 4)
LABELS = np.array([0, 2, 1, 0])


@pytest.fixture
def npz(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "set.npz", **arrays)
        return tmp_path / "set.npz"

    return write


def test_read_npz_adds_a_channel_to_gray_images(npz):
    given = read_npz(npz(images=IMAGES))
    np.testing.assert_array_equal(given.train.images, IMAGES.reshape(4, 1, 3, 4))


@pytest.mark.parametrize("channels", [1, 7])
def test_read_npz_moves_channels_first(npz, channels):
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 5, channels), dtype=np.uint8)
    given = read_npz(npz(images=images))
    np.testing.assert_array_equal(given.train.images, images.transpose(0, 3, 1, 2))


def test_read_npz_without_labels_has_no_classes(npz):
    given = read_npz(npz(images=IMAGES))
    assert given.train.labels is None
    assert given.class_names == ()


def test_read_npz_names_classes_by_number(npz):
    given = read_npz(npz(images=IMAGES, labels=LABELS.astype(np.uint8)))
    assert given.train.labels.tolist() == [0, 2, 1, 0]
    assert given.class_names == ("0", "1", "2")


def test_read_npz_counts_the_classes_of_both_splits(npz):
    path = npz(images=IMAGES, labels=LABELS, test_images=IMAGES, test_labels=LABELS + 1)
    assert read_npz(path).class_names == ("0", "1", "2", "3")


def test_read_npz_gives_the_test_split(npz):
    given = read_npz(npz(images=IMAGES, test_images=IMAGES[:2]))
    np.testing.assert_array_equal(given.test.images[:, 0], IMAGES[:2])


def test_read_npz_refuses_another_format(tmp_path):
    path = tmp_path / "set.npz"
    path.write_text("text")
    message = r"set\.npz must be an npz file .* the archive cannot be read \(File is not a zip file"
    with pytest.raises(ValueError, match=message):
        read_npz(path)


def test_read_npz_refuses_a_truncated_file(npz):
    path = npz(images=IMAGES)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"set\.npz must be an npz file .*: write it again with"):
        read_npz(path)


def test_read_npz_refuses_a_damaged_array(npz):
    path = npz(images=IMAGES)
    data = path.read_bytes()
    path.write_bytes(data.replace(IMAGES.tobytes(), IMAGES[::-1].tobytes()))
    with pytest.raises(ValueError, match=r"but images cannot be read \(Bad CRC-32"):
        read_npz(path)


def test_read_npz_never_unpickles(npz):
    path = npz(images=np.array([IMAGES[0], None], dtype=object))
    with pytest.raises(ValueError, match=r"but images cannot be read \(Object arrays"):
        read_npz(path)


@pytest.mark.parametrize("shape", [(10**23, 2, 2), (-1, -1, 2)])
def test_read_npz_refuses_a_header_that_lies_about_the_size(tmp_path, shape):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(ValueError, match=r"images cannot be read \(shape .* bytes, got 0\): write"):
        read_npz(tmp_path / "set.npz")


def test_read_npz_refuses_other_names(npz):
    with pytest.raises(ValueError, match="got x_train"):
        read_npz(npz(x_train=IMAGES))
    with pytest.raises(ValueError, match="got images, lables"):
        read_npz(npz(images=IMAGES, lables=LABELS))


@pytest.mark.parametrize(("name", "dtype"), [("images", np.float32), ("test_images", np.bool_)])
def test_read_npz_refuses_images_that_are_not_uint8(npz, name, dtype):
    arrays = {"images": IMAGES} | {name: IMAGES.astype(dtype)}
    message = rf"{name} in .*set\.npz .* uint8 .*got {np.dtype(dtype)}"
    with pytest.raises(TypeError, match=message):
        read_npz(npz(**arrays))


@pytest.mark.parametrize("shape", [(4, 12), (4, 0, 4)])
def test_read_npz_refuses_a_wrong_shape(npz, shape):
    with pytest.raises(ValueError, match=r"must be \(N, H, W\) .*got shape"):
        read_npz(npz(images=np.zeros(shape, np.uint8)))


def test_read_npz_refuses_channels_first(npz):
    with pytest.raises(ValueError, match=r"channels last, .* got shape \(2, 3, 8, 8\)"):
        read_npz(npz(images=np.zeros((2, 3, 8, 8), np.uint8)))


def test_read_npz_refuses_labels_that_are_not_integers(npz):
    with pytest.raises(TypeError, match=r"labels in .*set\.npz must be integers, got .*: convert"):
        read_npz(npz(images=IMAGES, labels=LABELS.astype(np.float64)))


def test_read_npz_refuses_labels_of_other_length(npz):
    with pytest.raises(ValueError, match=r"labels in .* must be one per image, \(4,\), got shape"):
        read_npz(npz(images=IMAGES, labels=LABELS[:3]))


@pytest.mark.parametrize("label", [-1, MAX_CLASSES])
def test_read_npz_refuses_labels_out_of_range(npz, label):
    message = r"labels in .* must be in \[0, 65536\), got .*: number the classes from 0"
    with pytest.raises(ValueError, match=message):
        read_npz(npz(images=IMAGES, labels=np.array([0, 0, 0, label])))


def test_read_npz_refuses_test_labels_alone(npz):
    with pytest.raises(ValueError, match="has test_labels without test_images: add the images"):
        read_npz(npz(images=IMAGES, test_labels=LABELS))


def test_read_npz_refuses_labels_of_one_split_only(npz):
    with pytest.raises(ValueError, match="must have labels for both or neither of images and test"):
        read_npz(npz(images=IMAGES, labels=LABELS, test_images=IMAGES))


def test_read_npz_refuses_test_images_of_another_shape(npz):
    message = r"test_images of one shape .*, got \(1, 3, 4\) and \(1, 4, 3\): resize one of them"
    with pytest.raises(ValueError, match=message):
        read_npz(npz(images=IMAGES, test_images=IMAGES.reshape(4, 4, 3)))


def test_read_npz_reads_an_array_in_fortran_order(npz):
    given = read_npz(npz(images=np.asfortranarray(IMAGES)))
    np.testing.assert_array_equal(given.train.images[:, 0], IMAGES)


def test_read_npz_refuses_a_file_that_unpacks_to_too_much(tmp_path):
    path = tmp_path / "set.npz"
    np.savez_compressed(path, images=np.zeros((30, 1024, 1024), np.uint8))
    message = r"20 MiB or 16 times .*, got 30 MiB: .*--data\.max-memory-mib"
    with pytest.raises(ValueError, match=message):
        read_npz(path, max_memory_mib=20)
    assert len(read_npz(path, max_memory_mib=31).train) == 30


def test_read_npz_takes_a_file_as_large_as_its_content_whatever_the_limit(npz):
    assert len(read_npz(npz(images=IMAGES), max_memory_mib=0).train) == 4


def test_read_npz_refuses_compression_that_has_no_bound(tmp_path):
    array = io.BytesIO()
    np.save(array, IMAGES)
    with zipfile.ZipFile(tmp_path / "set.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("images.npy", array.getvalue())
    with pytest.raises(ValueError, match=r"but images cannot be read \(it is compressed in a way"):
        read_npz(tmp_path / "set.npz")


@pytest.mark.parametrize(
    ("old", "new"),
    [("(4, 3, 4)", "(4, 3, 4("), ("|u1", "|V0")],
)
def test_read_npz_refuses_a_damaged_header(tmp_path, old, new):
    array = io.BytesIO()
    np.save(array, IMAGES)
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("images.npy", array.getvalue().replace(old.encode(), new.encode(), 1))
    message = r"set\.npz .*images cannot be read"
    with pytest.raises(ValueError, match=message):
        read_npz(tmp_path / "set.npz")


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [(6, 1, "encrypted"), (8, 8, "CRC")],
    ids=["encrypted", "deflate"],
)
def test_read_npz_refuses_an_archive_that_is_not_what_it_says(npz, offset, value, reason):
    path = npz(images=IMAGES)
    data = bytearray(path.read_bytes())
    data[offset] = value  # in the header of the member
    data[data.index(b"PK\x01\x02") + offset + 2] = value  # in the directory
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"but images cannot be read \(.*{reason}.*\): write it"):
        read_npz(path)


def test_read_npz_refuses_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "x")
    with pytest.raises(OSError, match="/x must be a regular file"):
        read_npz(tmp_path / "x")
