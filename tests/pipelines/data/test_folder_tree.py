import pytest

from pipelines.data.folder_tree import FileList, find_images, read_tree


@pytest.fixture
def tree(tmp_path):
    """Makes empty files; the tree is read without opening them."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


def names(files: FileList, folder):
    return [path.relative_to(folder).as_posix() for path in files.paths]


def test_find_images_sorts_by_path(tree):
    folder = tree("b/1.png", "a/2.png", "a/10.png", "a-b/1.png")
    found = [path.relative_to(folder).as_posix() for path in find_images(folder)]
    assert found == ["a/10.png", "a/2.png", "a-b/1.png", "b/1.png"]


def test_find_images_takes_png_jpeg_and_webp_in_any_case(tree):
    folder = tree("a.png", "b.JPG", "c.jpeg", "d.WebP", "notes.txt", "e.gif", "f.npz", "g")
    assert [path.name for path in find_images(folder)] == ["a.png", "b.JPG", "c.jpeg", "d.WebP"]


def test_find_images_ignores_hidden_files_and_folders(tree):
    folder = tree("a.png", ".b.png", ".cache/c.png", "__MACOSX/._d.png")
    assert [path.name for path in find_images(folder)] == ["a.png"]


def test_find_images_follows_links_without_running_in_circles(tree, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "x.png").touch()
    folder = tree("a/1.png")
    (folder / "b").symlink_to(elsewhere)
    (folder / "c").symlink_to(folder)
    found = [path.relative_to(folder).as_posix() for path in find_images(folder)]
    assert found == ["a/1.png", "b/x.png"]


def test_find_images_names_a_missing_folder(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"folder .*/nowhere does not exist: check the path"
    ):
        find_images(tmp_path / "nowhere")


def test_find_images_refuses_a_file(tree):
    with pytest.raises(NotADirectoryError, match=r"a\.png must be a folder of images, got a file"):
        find_images(tree("a.png") / "a.png")


def test_find_images_refuses_an_empty_folder(tree):
    with pytest.raises(ValueError, match="must hold PNG, JPEG or WebP images, got none: check"):
        find_images(tree("notes.txt"))


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
    message = r"got 1\.png beside cat/: move the 2 loose images, or ignore .* --data\.no-labels"
    with pytest.raises(ValueError, match=message):
        read_tree(tree("1.png", "2.png", "cat/3.png"), with_labels=True)


def test_read_tree_takes_train_and_test_as_splits(tree):
    folder = tree("train/a/1.png", "train/b/2.png", "test/b/3.png")
    given = read_tree(folder, with_labels=True)
    assert given.class_names == ("a", "b")
    assert names(given.train, folder) == ["train/a/1.png", "train/b/2.png"]
    assert names(given.test, folder) == ["test/b/3.png"]
    assert given.test.labels.tolist() == [1]
    assert given.validation is None


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_read_tree_takes_a_validation_folder_as_split(tree, name):
    folder = tree("train/1.png", f"{name}/2.png")
    given = read_tree(folder, with_labels=True)
    assert names(given.validation, folder) == [f"{name}/2.png"]
    assert given.test is None
    assert given.train.labels is None


@pytest.mark.parametrize("others", [("bus/1.png", "test/1.png"), ()], ids=["vehicles", "alone"])
def test_read_tree_takes_train_as_a_class_unless_the_others_are_splits(tree, others):
    given = read_tree(tree("train/1.png", *others), with_labels=True)
    assert "train" in given.class_names
    assert given.test is None


def test_read_tree_refuses_two_validation_folders(tree):
    message = "must have one validation folder, got val and validation: merge them"
    with pytest.raises(ValueError, match=message):
        read_tree(tree("train/1.png", "val/1.png", "validation/1.png"), with_labels=True)


@pytest.mark.parametrize("stray", ["test/c/3.png", "test/3.png"])
def test_read_tree_refuses_a_test_image_of_no_training_class(tree, stray):
    message = r"3\.png must lie in a sub-folder named after a class of train \(a, \.\.\.\)"
    with pytest.raises(ValueError, match=message):
        read_tree(tree("train/a/1.png", stray), with_labels=True)
