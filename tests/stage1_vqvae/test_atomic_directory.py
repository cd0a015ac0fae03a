import errno
import os
from pathlib import Path

import pytest

from stage1_vqvae.atomic_directory import atomic_directory, write_file


def test_directory_appears_whole(tmp_path):
    path = tmp_path / "runs" / "new"
    with atomic_directory(path) as partial:
        write_file(partial / "a", b"1")
        assert not path.exists()
    assert (path / "a").read_bytes() == b"1"
    assert list(path.parent.iterdir()) == [path]


def test_exception_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), atomic_directory(tmp_path / "new") as partial:  # noqa: PT012
        write_file(partial / "a", b"1")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "make", [lambda p: p.mkdir(), lambda p: p.touch(), lambda p: p.symlink_to("gone")]
)
def test_what_exists_is_not_overwritten(tmp_path, make):
    make(tmp_path / "old")
    with (
        pytest.raises(FileExistsError, match=r"a new directory is required .*old exists: choose"),
        atomic_directory(tmp_path / "old"),
    ):
        raise AssertionError


@pytest.mark.parametrize("make", [lambda p: (p / "a").mkdir(parents=True), lambda p: p.touch()])
def test_what_appears_in_the_meantime_is_not_overwritten(tmp_path, make):
    with pytest.raises(FileExistsError, match="new exists"), atomic_directory(tmp_path / "new"):
        make(tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_two_writers_have_names_of_their_own(tmp_path):
    # In one process, as in two containers whose processes have the same number.
    with (  # noqa: PT012
        pytest.raises(FileExistsError, match="exists"),
        atomic_directory(tmp_path / "new") as first,
        atomic_directory(tmp_path / "new") as second,
    ):
        write_file(first / "a", b"1")
        write_file(second / "a", b"2")
    assert (tmp_path / "new" / "a").read_bytes() == b"2"
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_longest_name_of_the_system_is_taken(tmp_path):
    with atomic_directory(tmp_path / ("n" * 255)) as partial:
        write_file(partial / "a", b"")
    with atomic_directory(tmp_path / ("語" * 85)) as partial:  # 255 bytes
        write_file(partial / "a", b"")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_everything_is_flushed_before_its_name(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, os.rename

    def logged(descriptor):
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", logged)
    monkeypatch.setattr(os, "rename", lambda *a: (events.append("rename"), rename(*a)))
    with atomic_directory(tmp_path / "new") as partial:
        write_file(partial / "config.json", b"{}")
    assert events == ["config.json", partial.name, "rename", tmp_path.name]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_said_of_the_path_with_what_to_do(tmp_path, number):
    with (
        pytest.raises(OSError, match=rf"^{tmp_path}/new could not be written \(.*\): make room"),
        atomic_directory(tmp_path / "new") as partial,
        atomic_directory(partial / "inner"),
    ):
        raise OSError(number, os.strerror(number))
    assert list(tmp_path.iterdir()) == []


def test_error_of_a_temporary_file_is_said_of_the_path(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=rf"^{tmp_path}/new could not be written \(No such"),
        atomic_directory(tmp_path / "new") as partial,
    ):
        write_file(partial / "gone" / "a", b"")


def test_error_of_another_file_passes_through(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.npz"), atomic_directory(tmp_path / "new"):
        (tmp_path / "data.npz").read_bytes()
