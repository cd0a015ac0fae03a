"""Files that are whole or not there at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    if path.exists():
        raise FileExistsError(
            f"a new path is required for the output, but {path} exists: "
            "choose another one or remove it first"
        )
