"""Files and directories that are whole or not there."""

import errno
import os
import stat
from pathlib import Path

import pytest
from faulty_disks import PowerCut, full_disk, on_linux
from tiny_runs import KilledError, tree

from pipelines.files.atomic import (
    atomic_path,
    refuse_existing,
    refuse_unwritable,
    remove_directory,
    remove_partial,
    write_text,
    writing,
)


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
    with full_disk(), pytest.raises(OSError, match=f"^{tmp_path}/a cannot be .*File too large"):
        refuse_unwritable(tmp_path / "a")
    assert tree(tmp_path) == []


@pytest.mark.parametrize("existing", [False, True])
def test_directory_is_replaced_only_once_the_new_one_is_complete(existing, tmp_path):
    target = tmp_path / "codebook"
    if existing:
        target.mkdir()
        (target / "old").touch()
    with atomic_path(target, replace_directory=True) as partial:
        partial.mkdir()
        (partial / "new").touch()
        assert (tree(target) == ["old"]) if existing else not target.exists()
    assert tree(tmp_path) == ["codebook", "codebook/new"]


def test_directory_that_cannot_be_replaced_is_kept(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    rename = Path.rename

    def rename_once(path, target):
        if target == tmp_path / "a" and (path / "new").exists():
            raise KilledError
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_once)
    with pytest.raises(KilledError):
        write_directory(tmp_path / "a", replace_directory=True)
    assert tree(tmp_path) == ["a", "a/old"]


def test_directory_is_not_replaced_unasked(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").touch()
    with pytest.raises(OSError, match=f"^{tmp_path}/a could not be written .*not empty"):
        write_directory(tmp_path / "a")
    assert tree(tmp_path) == ["a", "a/mine"]


def write_directory(path, **options):
    with atomic_path(path, **options) as partial:
        partial.mkdir()
        (partial / "new").write_text("content")


def test_two_writers_of_one_path_do_not_meet(tmp_path):
    with atomic_path(tmp_path / "a") as first, atomic_path(tmp_path / "a") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a").read_text() == "first"
    assert tree(tmp_path) == ["a"]


@pytest.mark.parametrize("suffix", ["", ".txt"])
def test_leftover_of_the_own_process_number_is_no_obstacle(tmp_path, suffix):
    """A container starts again with the numbers that it had."""
    (tmp_path / f".a.partial-{os.getpid()}{suffix}" / "half").mkdir(parents=True)
    write_text(tmp_path / f"a{suffix}", "whole")
    assert (tmp_path / f"a{suffix}").read_text() == "whole"


@pytest.mark.parametrize("name", ["n" * 251 + ".txt", "日" * 83 + ".txt"])
def test_name_as_long_as_the_system_takes_can_be_written(tmp_path, name):
    write_text(tmp_path / name, "whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_leftovers_are_removed_at_any_depth_but_not_what_is_being_written(tmp_path):
    (tmp_path / ".codes.partial-17" / "half").mkdir(parents=True)
    (tmp_path / ".config.partial-17.json").touch()
    (tmp_path / "samples" / ".1.partial-x1").mkdir(parents=True)
    (tmp_path / ".mine").touch()
    with atomic_path(tmp_path / "samples" / "2") as partial:
        partial.touch()
        remove_partial(tmp_path)
        assert partial.exists()
    assert tree(tmp_path) == [".mine", "samples", "samples/2"]


def test_directory_killed_while_it_is_removed_is_gone_from_its_name(tmp_path, monkeypatch):
    (tmp_path / "step-1").mkdir()
    (tmp_path / "step-1" / "model").touch()

    def killed(*_, **__):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KilledError):
            remove_directory(tmp_path / "step-1")
    assert not (tmp_path / "step-1").exists()
    remove_partial(tmp_path)
    assert tree(tmp_path) == []


@on_linux
@pytest.mark.parametrize("write", [lambda path: write_text(path, "content"), write_directory])
def test_what_has_its_name_survives_a_power_cut(tmp_path, monkeypatch, write):
    disk = PowerCut(monkeypatch)
    write(tmp_path / "new" / "folders" / "a")
    assert disk.survives(tmp_path / "new")


@pytest.mark.parametrize(("number", "fails"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_directories_are_flushed_where_the_system_can_do_that(tmp_path, monkeypatch, number, fails):
    def flush(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", flush)
    if fails:
        with pytest.raises(OSError, match=f"^{tmp_path}/a could not be written"):
            write_text(tmp_path / "a", "content")
    else:
        write_text(tmp_path / "a", "content")
        assert (tmp_path / "a").read_text() == "content"


def test_directories_are_not_flushed_where_they_cannot_be_opened(tmp_path, monkeypatch):
    """As on Windows."""
    real = os.open

    def open_files(path, *arguments, **keywords):
        if Path(path).is_dir() and path == tmp_path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", open_files)
    write_text(tmp_path / "a", "content")
    assert (tmp_path / "a").read_text() == "content"


@on_linux
def test_full_disk_is_a_sentence_with_path_and_cure_and_loses_nothing(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    message = rf"^{tmp_path}/a.txt could not be written \(File too large\): make room"
    with full_disk(free=100), pytest.raises(OSError, match=message):
        write_text(tmp_path / "a.txt", "new" * 1000)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert tree(tmp_path) == ["a.txt"]


@on_linux
def test_directory_that_takes_no_files_is_a_sentence_with_the_path():
    with pytest.raises(OSError, match=r"^/proc/a/b could not be written \(No such file"):
        write_text(Path("/proc/a/b"), "")


def test_errors_of_other_files_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, writing(tmp_path / "out" / "a"):
        (tmp_path / "images" / "0.png").read_bytes()
    assert caught.value.filename == str(tmp_path / "images" / "0.png")


def test_errors_with_a_sentence_of_their_own_pass_through(tmp_path):
    with pytest.raises(FileExistsError, match=r"^a new path is required"), writing(tmp_path / "a"):
        refuse_existing(tmp_path)


def test_text_with_names_that_are_no_utf8_is_written_with_escapes(tmp_path):
    write_text(tmp_path / "a", "caf\udce9")
    assert (tmp_path / "a").read_bytes() == rb"caf\udce9"
