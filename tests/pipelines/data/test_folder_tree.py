import os
import socket

import pytest
from PIL import features

from pipelines.data import decoding
from pipelines.data.decoding import BrokenImageError
from pipelines.data.folder_tree import find_images


def found(folder, **options):
    """The paths that are found, relative to the folder, and the notes."""
    paths, notes = find_images(folder, **options)
    return [path.relative_to(folder).as_posix() for path in paths], notes


def test_find_images_sorts_by_path(tree):
    folder = tree("b/1.png", "a/2.png", "a/10.png", "a-b/1.png")
    assert found(folder) == (["a/10.png", "a/2.png", "a-b/1.png", "b/1.png"], ())


def test_find_images_takes_every_ending_that_is_read_in_any_case(tree):
    names = {"a.png", "b.JPG", "c.jpeg", "d.WebP", "e.jfif", "f.JPE", "g.bmp", "h.tif", "i.TIFF"}
    names |= {"j.gif", "k.ppm"} | ({"l.avif"} if features.check("avif") else set())
    assert set(found(tree(*names))[0]) == names


def test_find_images_counts_what_has_another_ending(tree):
    folder = tree("a.png", "a.xyz", "b/b.XYZ", "c.tar.gz", "d", ".hidden", "b/.DS_Store")
    expected = "4 files of other endings (.xyz 2, .gz 1, none 1) are left out"
    assert found(folder) == (["a.png"], (expected,))


def test_find_images_shortens_a_long_list_of_endings(tree):
    folder = tree("a.png", "b.txt", "c.txt", *(f"x.e{i}" for i in range(9)))
    (note,) = found(folder)[1]
    assert note.startswith("11 files of other endings (.txt 2, ")
    assert note.endswith(" and 5 more) are left out")


def test_find_images_says_what_heic_needs(tree, monkeypatch):
    without = decoding.readable_endings() - {".heic"}
    monkeypatch.setattr("pipelines.data.folder_tree.readable_endings", lambda: without)
    _, notes = found(tree("a.png", "b.HEIC"))
    assert notes == (
        "1 file of other endings (.heic 1) is left out",
        "HEIC images are read where the package pillow-heif is installed",
    )


def test_find_images_ignores_hidden_files_and_what_archives_add(tree):
    folder = tree("a.png", ".b.png", ".cache/c.png", "__MACOSX/._d.png", "__MACOSX/e.png")
    assert found(folder) == (["a.png"], ())


def test_find_images_sorts_alike_however_a_name_is_composed(tree):
    # macOS writes e and an accent: by code points that comes before z, the composed letter after.
    assert found(tree("cafe\u0301/1.png", "cafz/2.png"))[0] == ["cafz/2.png", "cafe\u0301/1.png"]


def test_find_images_follows_links_once_and_says_so(tree, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "x.png").touch()
    folder = tree("a/1.png")
    (folder / "b").symlink_to(elsewhere)
    (folder / "c").symlink_to(folder)
    note = "1 folder linked a second time (c) is left out"
    assert found(folder) == (["a/1.png", "b/x.png"], (note,))


@pytest.mark.parametrize(("name", "target"), [("St.Bernard", "x/1.png/z"), ("loop", "loop")])
def test_find_images_refuses_a_dangling_link_to_a_folder(tree, name, target):
    folder = tree("x/1.png", "y/2.png")
    (folder / name).symlink_to(target)
    with pytest.raises(BrokenImageError, match=rf"/{name} "):
        find_images(folder)
    note = f"1 link to nothing ({name}) is left out"
    assert found(folder, skip_broken=True) == (["x/1.png", "y/2.png"], (note,))


def test_find_images_leaves_out_pipes_and_devices(tree):
    folder = tree("a.png")
    os.mkfifo(folder / "b.png")
    (folder / "c.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "d.png"))
        note = "3 special files with the ending of an image (b.png, c.png, d.png) are left out"
        paths, notes = found(folder)
    assert paths == ["a.png"]
    assert sorted(notes[0]) == sorted(note)  # in any order of the names


def test_find_images_refuses_a_missing_folder_and_a_file(tree, tmp_path):
    with pytest.raises(FileNotFoundError, match="/nowhere"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError, match=r"a\.png"):
        find_images(tree("a.png") / "a.png")


def test_find_images_of_a_folder_without_images_says_what_is_there(tree):
    with pytest.raises(ValueError, match=r"got none; 1 file .* \(\.txt 1\)"):
        find_images(tree("notes.txt"))


def test_find_images_names_a_folder_with_a_line_break_on_one_line(tree):
    with pytest.raises(ValueError, match=r"two\\nlines "):
        find_images(tree("two\nlines/notes.txt") / "two\nlines")
