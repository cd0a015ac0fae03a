"""Files and directories that are whole or not there."""

import pytest

from pipelines.atomic_files import atomic_path, refuse_existing, write_text


class KilledError(BaseException):
    """Stands for a kill: nothing in the code under test catches it."""


def write_half(path, error):
    with atomic_path(path) as partial:
        partial.write_text("ne")
        raise error


def fill_half(path):
    with atomic_path(path) as partial:
        partial.mkdir()
        (partial / "a").touch()
        raise KilledError


def test_file_takes_its_name_when_the_block_ends(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with atomic_path(target) as partial:
        partial.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_partial_path_keeps_the_ending_that_writers_look_at(tmp_path):
    with atomic_path(tmp_path / "a.npz") as partial:
        assert partial.suffix == ".npz"
        partial.touch()


def test_directory_takes_its_name_when_the_block_ends(tmp_path):
    with atomic_path(tmp_path / "photos") as partial:
        partial.mkdir()
        (partial / "a").touch()
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a"]


@pytest.mark.parametrize("error", [ValueError, KilledError])
def test_interrupted_file_leaves_what_was_there(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error):
        write_half(tmp_path / "a.txt", error)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_interrupted_directory_leaves_nothing(tmp_path):
    with pytest.raises(KilledError):
        fill_half(tmp_path / "photos")
    assert list(tmp_path.iterdir()) == []


def test_write_text_replaces_the_whole_file(tmp_path):
    (tmp_path / "a").write_text("long before")
    write_text(tmp_path / "a", "é")
    assert (tmp_path / "a").read_bytes() == "é".encode()


@pytest.mark.parametrize("kind", ["touch", "mkdir"])
def test_existing_output_is_refused(tmp_path, kind):
    getattr(tmp_path / "a", kind)()
    with pytest.raises(FileExistsError, match=r"a new path is required .*, but .*/a ex"):
        refuse_existing(tmp_path / "a")


def test_new_output_is_accepted(tmp_path):
    refuse_existing(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
