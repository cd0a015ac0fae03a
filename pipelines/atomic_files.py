"""Files that are whole or not there at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PROBE_BYTES = 64 * 1024  # a full disk may still take the name of an empty file


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to make a file or directory at.

    It takes its name once the block succeeds; an exception or a kill leaves what was at `path`
    before. Parents are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
    try:
        yield partial
        if partial.is_file():
            with partial.open("rb") as file:
                os.fsync(file.fileno())  # a name must not outlive a power cut that its bytes do not
        partial.replace(path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a whole text file, replacing what was there."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def refuse_existing(path: Path) -> None:
    """Makes sure that nothing of the user's would be overwritten.

    Raises:
        FileExistsError: `path` exists.
    """
    if os.path.lexists(path):  # unlike Path.exists, also where the system does not take the name
        raise FileExistsError(
            f"a new path is required for the output, but {path} exists: "
            "choose another one or remove it first"
        )


def refuse_unwritable(path: Path) -> None:
    """Makes sure before any work that a file or directory can be written at `path`.

    Some KiB are written to the nearest directory that exists, and removed again: permission bits
    neither bind root nor tell of a read-only or full disk. An existing directory must take new
    files itself. Nothing is made.

    Raises:
        OSError: The directory refuses, is none, or does not take the name.
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
