import numpy as np
import pytest

from pipelines.data import image_set
from pipelines.data.image_set import DataSplits, ImageSet


def make(count=4, labels=None, shape=(1, 2, 3), seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    return ImageSet(images, None if labels is None else np.array(labels, np.int64))


def test_image_set_image_shape_is_channels_height_width():
    assert make(shape=(3, 5, 7)).image_shape == (3, 5, 7)


def test_take_gives_images_and_labels_in_the_given_order():
    images = make(labels=[0, 1, 2, 3])
    taken = images.take(np.array([2, 0]))
    assert taken.labels.tolist() == [2, 0]
    np.testing.assert_array_equal(taken.images, np.stack([images.images[2], images.images[0]]))
    assert make().take(np.array([1])).labels is None


def test_image_set_refuses_float_images():
    with pytest.raises(TypeError, match="images must be uint8, got float32"):
        ImageSet(np.zeros((1, 1, 2, 2), np.float32))


def test_image_set_refuses_images_without_channel_axis():
    with pytest.raises(ValueError, match=r"images must be \(N, C, H, W\), got shape \(1, 2, 2\)"):
        ImageSet(np.zeros((1, 2, 2), np.uint8))


def test_image_set_refuses_labels_of_another_type():
    with pytest.raises(TypeError, match="labels must be int64, got uint8"):
        ImageSet(np.zeros((1, 1, 2, 2), np.uint8), np.zeros(1, np.uint8))


def test_image_set_refuses_a_label_too_many():
    with pytest.raises(ValueError, match=r"labels must be one per image, \(4,\), got shape \(5,\)"):
        make(4, labels=[0] * 5)


def test_splits_count_their_classes():
    part = make(labels=[0, 1, 0, 1])
    assert DataSplits(part, part, part, ("a", "b", "c")).num_classes == 3
    assert DataSplits(make(), make(), make()).num_classes is None


def test_splits_refuse_an_empty_split():
    with pytest.raises(ValueError, match="the test split must hold at least one image, got none"):
        DataSplits(make(), make(), make(0))


def test_splits_refuse_different_shapes():
    with pytest.raises(ValueError, match=r"one shape .*, got \(1, 2, 3\) in train and \(3, 2, 3\)"):
        DataSplits(make(), make(), make(shape=(3, 2, 3)))


def test_splits_refuse_labels_without_class_names_and_the_reverse():
    part = make(labels=[0, 0, 0, 0])
    with pytest.raises(ValueError, match="got 0 class names and the train split with labels"):
        DataSplits(part, part, part)
    with pytest.raises(ValueError, match="got 1 class names and the train split without labels"):
        DataSplits(make(), make(), make(), ("a",))


def test_splits_refuse_a_label_without_class():
    for label in (-1, 2):
        part = make(labels=[0, 0, 1, label])
        with pytest.raises(ValueError, match=r"\[0, 2\), got .* train"):
            DataSplits(part, part, part, ("a", "b"))


def test_fingerprint_is_stable_across_versions():
    part = ImageSet(np.arange(24, dtype=np.uint8).reshape(4, 1, 2, 3), np.array([0, 1, 0, 1]))
    assert DataSplits(part, part, part, ("a", "b")).fingerprint == "6c3d949c47f4108b"


def change_pixel(train):
    train.images[-1, -1, -1, -1] ^= 1
    return DataSplits(train, make(2, [0, 0]), make(2, [0, 0]), ("a", "b"))


def change_label(train):
    train.labels[0] = 1
    return DataSplits(train, make(2, [0, 0]), make(2, [0, 0]), ("a", "b"))


def change_class_name(train):
    return DataSplits(train, make(2, [0, 0]), make(2, [0, 0]), ("a", "c"))


def change_shape(train):
    parts = (train, make(2, [0, 0]), make(2, [0, 0]))
    turned = [ImageSet(part.images.reshape(-1, 1, 3, 2), part.labels) for part in parts]
    return DataSplits(*turned, ("a", "b"))


def change_split(train):
    moved = ImageSet(train.images[:-1], train.labels[:-1])
    return DataSplits(moved, make(2, [0, 0]), make(2, [0, 0]), ("a", "b"))


@pytest.mark.parametrize(
    "change",
    [change_pixel, change_label, change_class_name, change_shape, change_split],
)
def test_fingerprint_changes_with(change):
    train = make(labels=[0, 1, 0, 0])
    before = DataSplits(train, make(2, [0, 0]), make(2, [0, 0]), ("a", "b")).fingerprint
    assert change(train).fingerprint != before


def test_fingerprint_of_a_large_set_reads_at_most_the_bound(monkeypatch):
    monkeypatch.setattr(image_set, "MAX_HASHED_BYTES", 100)
    hashed = []

    class Digest:
        def update(self, data):
            hashed.append(memoryview(data).nbytes if not isinstance(data, bytes) else 0)

    make(1000, shape=(1, 2, 3)).update_hash(Digest())
    assert 50 <= sum(hashed) <= 100 + 6  # One image of 6 bytes more, where the step is rounded.


def test_train_images_are_counted_by_class():
    images = ImageSet(np.zeros((4, 1, 2, 2), np.uint8), np.array([3, 0, 3, 3]))
    names = ("a", "b", "c", "d")
    assert DataSplits(images, images, images, names).train_images_per_class == (1, 0, 0, 3)
    unlabelled = ImageSet(images.images)
    assert DataSplits(unlabelled, unlabelled, unlabelled).train_images_per_class == ()
