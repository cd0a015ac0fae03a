"""Files and directories that are whole or not there."""

import re
import sys
from pathlib import Path

import pytest

from pipelines.atomic_files import atomic_path, refuse_existing, refuse_unwritable, write_text

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="made of what only Linux has")


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


@pytest.mark.parametrize("path", ["a.png", "new/directories/a.png", ".", "there", "there/a.png"])
def test_writable_output_is_accepted_and_nothing_is_made(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    refuse_unwritable(Path(path))
    refuse_unwritable(tmp_path / path)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_file_to_be_replaced_is_accepted_and_kept(tmp_path):
    (tmp_path / "a.json").write_text("old")
    refuse_unwritable(tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == "old"


@pytest.mark.parametrize("below", ["", "no/such/directories/"])
def test_name_that_the_system_does_not_take_is_refused(tmp_path, below):
    path = tmp_path / f"{below}{'n' * 300}.png"
    refuse_existing(path)  # asked first by every command
    with pytest.raises(OSError, match=f"^{path} cannot be .*name too long"):
        refuse_unwritable(path)


@pytest.mark.parametrize("below", ["a.png", "b/a.png"])
def test_output_below_a_file_is_refused(tmp_path, below):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=f"^{tmp_path}/file/{below} .*Not a directory"):
        refuse_unwritable(tmp_path / "file" / below)


def test_output_below_a_link_to_nothing_is_refused(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OSError, match=f"^{tmp_path}/link/a.png cannot be written"):
        refuse_unwritable(tmp_path / "link" / "a.png")


@on_linux  # which lets nobody make files in /proc, root included, whatever the permission bits say
def test_directory_that_takes_no_files_is_refused():
    with pytest.raises(OSError, match=r"^/proc/new/a.png cannot be written in /proc \("):
        refuse_unwritable(Path("/proc/new/a.png"))


@on_linux
def test_full_disk_is_refused(tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=re.escape(f"{tmp_path}/a cannot be written")):
            refuse_unwritable(tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
