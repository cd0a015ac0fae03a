"""Atomic writes: files and directories are whole or absent, also after a kill or a power cut."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_PARTIAL = ".*.partial-*"
_LOCK = ".partial-lock"
_PREFIX_LENGTH = 24  # characters of a name; some systems allow 143 bytes for the whole
_PROBE_BYTES = 64 * 1024  # a full disk may still take the name of an empty file
_NO_DIRECTORY_FSYNC = {errno.EINVAL, errno.ENOTSUP}


@contextmanager
def atomic_path(path: Path, *, replace_directory: bool = False) -> Iterator[Path]:
    """Yields a temporary path for a new file or directory, and renames it to `path` at the end.

    It is renamed when the block succeeds and everything in it is on the disk. An exception or a
    kill leaves at `path` what was there before. Parents are created. A file at `path` is replaced,
    and with `replace_directory` also a directory: a kill between the two renames that this takes
    leaves nothing there.
    """
    with writing(path):
        make_directories(path.parent)
        with temporary_directory(path) as directory:
            partial = directory / path.name
            yield partial
            flush_to_disk(partial)
            if replace_directory and path.is_dir():
                _exchange(partial, path, directory / ".partial-old")
            else:
                partial.replace(path)
            flush_directory(path.parent)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Replaces system errors that concern `path` by a sentence that names it and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno is None or not _concerns(error, path.absolute()):
            raise
        raise type(error)(
            f"{path} could not be written ({os.strerror(error.errno)}): make room or choose a "
            "place that can be written, then run the command again (a training with --resume)"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file as a whole, replacing what was there.

    Surrogates, which stand for bytes of file names that are no UTF-8, are written as escapes.
    """
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def make_directories(path: Path) -> None:
    """Creates a directory and its parents, and flushes their names to the disk."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for made in missing:
        flush_directory(made.parent)


def remove_directory(path: Path) -> None:
    """Removes a directory, which is renamed first so that a kill leaves no half of it."""
    partial = path.with_name(f"{_prefix(path)}{secrets.token_hex(8)}")
    path.rename(partial)  # takes no room, which removal may be meant to make
    shutil.rmtree(partial, ignore_errors=True)


def remove_partial(directory: Path) -> None:
    """Removes unfinished writes of killed processes at any depth; those in progress are kept."""
    for path in sorted(directory.rglob(_PARTIAL)):
        with suppress(OSError):  # of a read-only disk, or where another process is faster
            if not path.is_dir():
                path.unlink()
            elif not _is_held(path):
                shutil.rmtree(path)


def is_empty(path: Path, ignored: Container[str] = ()) -> bool:
    """Checks that `path` is a directory of unfinished writes and names in `ignored` only."""
    if not path.is_dir():
        return False
    unfinished = set(path.glob(_PARTIAL))
    return all(inner in unfinished or inner.name in ignored for inner in path.iterdir())


def flush_to_disk(path: Path) -> None:
    """Flushes a file, or a directory with everything in it, to the disk."""
    if path.is_symlink():
        return
    if path.is_dir():
        for inner in path.iterdir():
            flush_to_disk(inner)
        flush_directory(path)
        return
    with path.open("r+b") as file:  # Windows flushes only what is open for writing
        os.fsync(file.fileno())


def flush_directory(directory: Path) -> None:
    """Flushes the names in `directory` to the disk, where the system can do that."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except PermissionError:  # Windows opens no directories
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_FSYNC:
            raise
    finally:
        os.close(descriptor)


def refuse_existing(path: Path) -> None:
    """Raises FileExistsError where `path` exists, so that nothing of the user's is overwritten."""
    if os.path.lexists(path):  # unlike Path.exists, also where the system does not take the name
        raise FileExistsError(
            f"a new path is required for the output, but {path} exists: "
            "choose another one or remove it first"
        )


def refuse_unwritable(path: Path) -> None:
    """Raises OSError, before any work, where no file or directory can be written at `path`.

    Some KiB are written to the nearest existing directory and removed again: permission bits do not
    bind root and do not show a read-only or full disk. If `path` is a directory, files must be
    writable in it.
    """
    above = next((p for p in (path, *path.parents) if os.path.lexists(p)), Path(path.anchor))
    directory = path.parent if above == path and not path.is_dir() else above
    try:
        for name in path.relative_to(above).parts:
            with suppress(FileNotFoundError):
                (directory / name).lstat()  # fails where the system does not take such a name
        with tempfile.TemporaryFile(dir=directory, prefix=".probe.partial-") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise type(error)(
            f"{path} cannot be written in {directory} ({error.strerror or error}): choose another "
            "path, or make that a directory with room that can be written"
        ) from error


@contextmanager
def temporary_directory(path: Path) -> Iterator[Path]:
    """Yields a new directory next to `path`, locked while in use and removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
    try:
        with _held(directory):
            yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _prefix(path: Path) -> str:
    """Returns the prefix of a temporary name for `path`, short since systems limit the length."""
    return f".{path.name[:_PREFIX_LENGTH]}.partial-"


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Locks a directory against `remove_partial` of other processes; a kill releases the lock."""
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT)
    try:
        with suppress(OSError):  # of file systems without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_held(directory: Path) -> bool:
    if sys.platform == "win32" or not (directory / _LOCK).exists():
        return False
    descriptor = os.open(directory / _LOCK, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _concerns(error: OSError, path: Path) -> bool:
    """Checks if an error is of a write, which names no file, or names one on the way to `path`."""
    if error.filename is None:
        return True
    named = Path(os.fsdecode(error.filename)).absolute()
    return named in path.parents or path.parent in named.parents


def _exchange(partial: Path, path: Path, replaced: Path) -> None:
    path.rename(replaced)
    try:
        partial.rename(path)
    except BaseException:
        replaced.rename(path)
        raise
