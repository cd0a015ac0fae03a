"""One writer at a time: a lock of the operating system, and a file that names its owner."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.files.atomic import write_text

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK_FILE = ".lock"
_OWNER_SUFFIX = ".owner"
LOCK_FILES = (LOCK_FILE, LOCK_FILE + _OWNER_SUFFIX)
"""What is in a directory for its lock alone."""
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_SECONDS_BETWEEN_LOOKS = 1.0

logger = logging.getLogger(__name__)


@contextmanager
def owned(
    what: Path, activity: str, *, lock_file: Path | None = None, take_turns: bool = False
) -> Iterator[None]:
    """Keeps other processes from writing to `what` for the length of the block.

    The system frees the lock when its owner ends, also by a kill. On a file system without locks a
    warning is logged and the block runs unprotected.

    Args:
        what: The directory to be written.
        activity: What is done to it, a participle, as in `runs/a is being trained by process 12`.
        lock_file: What is locked; None takes `.lock` in the directory. Its parents are made, and
            removed again where the block leaves nothing else in them.
        take_turns: Wait for an owner of the same activity. Any other owner is refused at once.
    """
    from filelock import FileLock

    lock_file = lock_file or what / LOCK_FILE
    owner_file = lock_file.with_name(lock_file.name + _OWNER_SUFFIX)
    made = [path for path in (lock_file.parent, *lock_file.parent.parents) if not path.exists()]
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_file, fallback_to_soft=False)
    try:
        _acquire(lock, what, activity, owner_file, take_turns=take_turns)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logger.warning(
            "%s is on a file system without locks: let no other process write to it", what
        )
    try:
        write_text(owner_file, f"{activity} by process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        for path in (owner_file, lock_file):  # while locked: a waiting process makes its own
            with suppress(OSError):
                path.unlink()
        lock.release()
        with suppress(OSError):
            for path in made:
                path.rmdir()


def _acquire(
    lock: BaseFileLock, what: Path, activity: str, owner_file: Path, *, take_turns: bool
) -> None:
    from filelock import Timeout

    is_waiting = False
    while True:
        try:
            lock.acquire(timeout=_SECONDS_BETWEEN_LOOKS if take_turns else 0)
        except Timeout:
            owner = _owner(owner_file)
            if not (take_turns and owner.startswith(activity)):
                raise RuntimeError(f"{what} is being {owner}: wait for it, or end it") from None
            if not is_waiting:
                logger.warning("%s is being %s: waiting for it to end", what, owner)
            is_waiting = True
        else:
            return


def _owner(owner_file: Path) -> str:
    """Describes the owner, as the end of a sentence that begins with `it is being`."""
    try:
        return owner_file.read_text(encoding="utf-8")
    except OSError:  # it has only just begun
        return "written by another process"
