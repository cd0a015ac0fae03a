from itertools import chain

import numpy as np
import pytest
from PIL import Image

from pipelines.data.config import DataConfig
from pipelines.data.load import EMBEDDED, load_splits


@pytest.fixture(scope="module")
def mini():
    return load_splits(DataConfig())


def test_load_splits_carves_validation_from_the_embedded_training_images(mini):
    sizes = {name: len(part) for name, part in mini.by_name.items()}
    assert sizes == {"train": 9_500, "validation": 500, "test": 2_000}


def test_load_splits_of_the_embedded_set_loses_and_repeats_no_image(mini):
    def multiset(*arrays):
        return sorted(image.tobytes() for array in arrays for image in array)

    with np.load(EMBEDDED) as arrays:
        training = multiset(mini.train.images, mini.validation.images)
        assert training == multiset(arrays["images"])
        assert multiset(mini.test.images) == multiset(arrays["test_images"])


def test_load_splits_of_the_embedded_set_keeps_labels_with_images(mini):
    with np.load(EMBEDDED) as arrays:
        label_of = {
            image.tobytes(): int(label)
            for image, label in zip(arrays["images"], arrays["labels"], strict=True)
        }
    got = [label_of[image.tobytes()] for image in mini.validation.images]
    assert got == mini.validation.labels.tolist()


def test_load_splits_of_the_embedded_set_names_the_classes(mini):
    assert mini.num_classes == 10
    assert mini.class_names[0] == "T-shirt/top"


def test_load_splits_limit_takes_the_first_of_each_split(mini):
    limited = load_splits(DataConfig(limit=600))
    assert [len(part) for part in limited.by_name.values()] == [600, 500, 600]
    np.testing.assert_array_equal(limited.train.images, mini.train.images[:600])


def test_load_splits_without_labels_drops_classes_too():
    splits = load_splits(DataConfig(labels=False, limit=5))
    assert splits.num_classes is None
    assert splits.test.labels is None


def test_load_splits_resizes_a_set_of_fixed_size():
    splits = load_splits(DataConfig(image_size=(32, 20), channels=3, limit=5))
    assert splits.image_shape == (3, 32, 20)


@pytest.mark.parametrize(("fit", "count"), [("crop", 1), ("pad", 0), ("stretch", 0)])
def test_load_splits_says_what_a_set_of_fixed_size_loses_to_the_crop(fit, count):
    notes = load_splits(DataConfig(image_size=(32, 20), fit=fit, limit=5)).notes
    assert len(notes) == count
    assert all(note.startswith("15 of 15 images lose more than a third") for note in notes)


def test_load_splits_reads_an_npz_file(tmp_path):
    images = np.arange(20, dtype=np.uint8).repeat(12).reshape(20, 3, 4)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(20) % 2)
    splits = load_splits(DataConfig(source=f"npz:{tmp_path / 'set.npz'}"))
    # A tenth of 20 for testing, then a fifth of 18 for validation.
    assert [len(part) for part in splits.by_name.values()] == [14, 4, 2]
    for part in splits.by_name.values():
        np.testing.assert_array_equal(part.labels, part.images[:, 0, 0, 0] % 2)


def test_load_splits_reads_a_folder_from_its_path_in_the_source(tmp_path):
    for level in range(5):
        Image.new("L", (4, 3), level).save(tmp_path / f"{level}.png")
    splits = load_splits(DataConfig(source=f"folder:{tmp_path}"))
    levels = [part.images[:, 0, 0, 0].tolist() for part in splits.by_name.values()]
    assert sorted(chain(*levels)) == [0, 1, 2, 3, 4]


def test_load_splits_reads_idx_files_of_the_data_folder(tmp_path, write_idx_set):
    _, test = write_idx_set(tmp_path / "fashion-mnist", [0, 1, 2, 3], [4])
    splits = load_splits(DataConfig(source="fashion-mnist", root=tmp_path))
    np.testing.assert_array_equal(splits.test.images[:, 0], test)
    assert sorted([*splits.train.labels, *splits.validation.labels]) == [0, 1, 2, 3]
