import os

import pytest

from pipelines.data.folder_splits import read_tree, split_named


def names(files, folder):
    return [path.relative_to(folder).as_posix() for path in files.paths]


@pytest.mark.parametrize(
    ("split", "spellings"),
    [
        ("train", "train Training TRAIN training_set trainset images-train train2017 trainval"),
        ("validation", "val Valid VALIDATION dev val_images validation-set"),
        ("test", "test Testing TEST test_set test-images"),
        (None, "extra trains train_station bullet-train invalid tested latest value devil 2017"),
    ],
)
def test_split_is_told_by_usual_names_only(split, spellings):
    assert {split_named(name) for name in spellings.split()} == {split}


def test_read_tree_of_loose_images_has_no_labels(tree):
    given = read_tree(tree("1.png", "2.png"), with_labels=True)
    assert given.train.labels is None
    assert given.class_names == ()


def test_read_tree_takes_the_first_sub_folder_as_class(tree):
    folder = tree("dog/1.png", "cat/deep/er/1.png", "cat/2.png", "empty/notes.txt")
    given = read_tree(folder, with_labels=True)
    assert given.class_names == ("cat", "dog")
    assert names(given.train, folder) == ["cat/2.png", "cat/deep/er/1.png", "dog/1.png"]
    assert given.train.labels.tolist() == [0, 0, 1]


def test_read_tree_without_labels_takes_every_image(tree):
    given = read_tree(tree("1.png", "dog/2.png", "cat/3.png"), with_labels=False)
    assert given.train.labels is None
    assert len(given.train) == 3


def test_read_tree_refuses_images_with_and_without_class(tree):
    message = r"1\.png next to cat/: .* 2 loose images, .* --data\.no-labels"
    with pytest.raises(ValueError, match=message):
        read_tree(tree("1.png", "2.png", "cat/3.png"), with_labels=True)


@pytest.mark.parametrize(
    ("wrapping", "train", "val", "test"),
    [
        ("", "Training", "Validation", "TESTING"),
        ("chest_xray/", "train", "val", "test"),
        ("download/chest_xray/", "TRAIN", "dev", "test"),
    ],
)
def test_read_tree_finds_splits_of_classes(tree, wrapping, train, val, test):
    paths = [f"{train}/a/1.png", f"{train}/b/2.png", f"{val}/a/3.png", f"{test}/b/4.png"]
    folder = tree(*(wrapping + path for path in paths), "__MACOSX/x.png", ".DS_Store")
    given = read_tree(folder, with_labels=True)
    assert given.class_names == ("a", "b")
    assert names(given.train, folder / wrapping) == paths[:2]
    assert names(given.validation, folder / wrapping) == paths[2:3]
    assert names(given.test, folder / wrapping) == paths[3:]
    assert given.test.labels.tolist() == [1]
    assert given.notes == (
        f"splits: train is {wrapping}{train}/, validation is {wrapping}{val}/, "
        f"test is {wrapping}{test}/",
    )


def test_read_tree_takes_splits_of_loose_images(tree):
    folder = tree("train/1.png", "valid/2.png")
    given = read_tree(folder, with_labels=True)
    assert names(given.validation, folder) == ["valid/2.png"]
    assert given.test is None
    assert given.train.labels is None


def test_read_tree_takes_train_alone_as_the_training_split(tree):
    given = read_tree(tree("train/train/a/1.png", "train/train/b/2.png"), with_labels=True)
    assert given.class_names == ("a", "b")
    assert given.test is None


def test_read_tree_looks_through_a_wrapping_inside_each_split(tree):
    given = read_tree(
        tree("train/x/a/1.png", "train/x/b/2.png", "test/y/a/3.png"), with_labels=True
    )
    assert given.class_names == ("a", "b")
    assert given.test.labels.tolist() == [0]


def test_read_tree_does_not_take_the_only_class_of_a_split_for_a_wrapping(tree):
    given = read_tree(tree("train/a/x/1.png", "train/b/2.png", "test/b/x/3.png"), with_labels=True)
    assert given.test.labels.tolist() == [1]


def test_read_tree_finds_classes_in_a_wrapping_folder(tree):
    given = read_tree(tree("animals/cat/1.png", "animals/dog/2.png"), with_labels=True)
    assert given.class_names == ("cat", "dog")


def test_read_tree_keeps_a_single_class(tree):
    assert read_tree(tree("cat/1.png", "cat/2.png"), with_labels=True).class_names == ("cat",)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["train/1.png", "test/1.png", "extra/1.png"], "test/, train/ are .*extra/"),
        (["train/a/1.png", "test/a/1.png", "0.png"], r" 0\.png "),
        (["train/1.png", "val/1.png", "valid/2.png"], "one validation folder, got val and valid"),
        (["test/1.png", "val/1.png"], "train folder .* test, val"),
        (["cat/train/1.png", "cat/test/1.png", "dog/1.png"], "cat/ .* test, train"),
    ],
)
def test_read_tree_refuses_a_mixture(tree, paths, message):
    with pytest.raises(ValueError, match=message):
        read_tree(tree(*paths), with_labels=False)


@pytest.mark.parametrize("stray", ["test/c/3.png", "test/3.png"])
def test_read_tree_refuses_a_test_image_of_no_training_class(tree, stray):
    message = r"3\.png .*\(a, b\)"
    with pytest.raises(ValueError, match=message):
        read_tree(tree("train/a/1.png", "train/b/1.png", stray, "test/a/1.png"), with_labels=True)


def test_read_tree_merges_classes_that_differ_in_composition_only(tree):
    given = read_tree(tree("caf\u00e9/1.png", "cafe\u0301/2.png", "z/3.png"), with_labels=True)
    assert given.class_names == ("caf\u00e9", "z")
    assert sorted(given.train.labels.tolist()) == [0, 0, 1]


def test_read_tree_takes_names_that_are_not_utf_8(tree):
    given = read_tree(tree(os.fsdecode(b"caf\xe9/1.png"), "b/2.png"), with_labels=True)
    assert [os.fsencode(name) for name in given.class_names] == [b"b", b"caf\xe9"]
