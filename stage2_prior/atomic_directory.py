"""Directories that are whole or not there at all, also after a kill or a power cut.

Both stages have a copy of this file, kept identical by a test. Imports no torch.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX_LENGTH = 24  # characters of a name; some systems allow 143 bytes for the whole
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}
_NO_DIRECTORY_FSYNC = {errno.EINVAL, errno.ENOTSUP}


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yields a temporary directory to fill, which is renamed to `path` when the block succeeds.

    An exception leaves nothing; a kill at most the temporary directory, `.NAME.partial-*`. Files
    must be on the disk when the block ends: see `write_file`. The parents of `path` are made.

    Raises:
        FileExistsError: `path` exists; nothing is ever overwritten.
        OSError: The disk is full or refuses.
    """
    _refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name[:_PREFIX_LENGTH]}.partial-{secrets.token_hex(8)}")
    try:
        partial.mkdir()
        yield partial
        _flush_directory(partial)
        partial.rename(path)
        _flush_directory(path.parent)
    except OSError as error:
        if error.errno in _TAKEN and error.filename == str(partial):
            _refuse_existing(path)
        if error.errno in _FULL or (error.errno and str(error.filename).startswith(str(partial))):
            raise _not_written(path, error) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_file(path: Path, content: bytes) -> None:
    """Writes a new file and waits until its bytes are on the disk."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(
            f"a new directory is required to save to, but {path} exists: "
            "choose another path or remove it first"
        )


def _not_written(path: Path, error: OSError) -> OSError:
    """Returns `error`, which names a temporary file, as one about `path`."""
    assert error.errno is not None
    named = type(error)(
        f"{path} could not be written ({os.strerror(error.errno)}): make room or choose a place "
        "that can be written"
    )
    named.errno = error.errno  # so that a directory around this one can name itself
    return named


def _flush_directory(directory: Path) -> None:
    """Makes the names in `directory` survive a power cut, where the system can do that."""
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
