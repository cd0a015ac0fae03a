"""Check that the processes of a run, perhaps on several machines, see the same files."""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from pathlib import Path

from pipelines.training.exchange import Exchange

_TIME_TO_APPEAR = 5.0
"""Seconds that a network file system may take to show a new file to another machine."""


def require_shared(exchange: Exchange, directory: Path) -> None:
    """Checks that every process sees a directory of rank 0.

    Rank 0 creates a file in it for a moment, under a unique name. A missing directory is created
    for that moment.
    """
    # A run directory takes this name for unfinished and removes it, should a kill leave it there.
    name = f".shared.partial-{exchange.on_main(lambda: uuid.uuid4().hex)}"
    place = exchange.on_main(lambda: str(directory.absolute()))
    made = exchange.on_main(lambda: _leave(directory / name))
    if not _appears(directory / name):
        place = f"{directory.absolute()}, without the files of rank 0"
    try:
        exchange.agree(
            {"directory": place},
            "start them in one working directory, on a file system that all machines share",
        )
    finally:
        if exchange.rank == 0:
            _remove(directory / name, made)


def _leave(token: Path) -> list[str]:
    """Creates an empty file; returns the directories created for it, the innermost first."""
    made = [path for path in token.parents if not path.exists()]
    token.parent.mkdir(parents=True, exist_ok=True)
    token.touch()
    return list(map(str, made))


def _appears(path: Path) -> bool:
    deadline = time.monotonic() + _TIME_TO_APPEAR
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _remove(token: Path, made: list[str]) -> None:
    """Undoes `_leave`; a directory that is in use by now stays."""
    token.unlink(missing_ok=True)
    with suppress(OSError):
        for path in made:
            Path(path).rmdir()
