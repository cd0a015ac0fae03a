"""New output files, named by the user or by the next free number of a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipelines.files.atomic import (
    atomic_path,
    flush_directory,
    flush_to_disk,
    make_directories,
    temporary_directory,
    writing,
)


def next_free(folder: Path) -> Path:
    """Returns `folder/NUMBER.png` with the lowest number above all existing ones."""
    taken = [int(path.stem) for path in folder.glob("*.png") if path.stem.isdecimal()]
    return folder / f"{max(taken, default=0) + 1:04d}.png"


def save_new(out: Path | None, folder: Path, write: Callable[[Path], None]) -> Path:
    """Saves a PNG at `out` (None: under the next free number of `folder`); returns its path.

    Processes that save in one folder at the same time take a number each. `write` writes the file
    to the path that it is given.
    """
    if out is not None:
        with atomic_path(out) as partial:
            write(partial)
        return out
    with writing(next_free(folder)):
        make_directories(folder)
        with temporary_directory(folder / "image.png") as directory:
            partial = directory / "image.png"
            write(partial)
            flush_to_disk(partial)
            path = _take_number(partial, folder)
        flush_directory(folder)
    return path


def _take_number(whole: Path, folder: Path) -> Path:
    while True:
        path = next_free(folder)
        try:
            path.hardlink_to(whole)  # which, unlike a renaming, never replaces a file
        except FileExistsError:  # another process took the number
            continue
        except OSError:  # a file system without hard links
            whole.replace(path)
        return path
