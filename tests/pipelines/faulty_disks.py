"""Disks that are full or lose power, as far as a test can have them without one."""

import errno
import os
import stat
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="made of what only Linux has")


@contextmanager
def full_disk(free=0):
    """No file may grow beyond `free` bytes: real writes fail in the middle, "File too large"."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class PowerCut:
    """Knows what `os.fsync` has saved; flushes like Windows nothing that is open for reading."""

    def __init__(self, monkeypatch):
        self._saved = {}
        self._flush = os.fsync
        monkeypatch.setattr(os, "fsync", self._save)

    def _save(self, descriptor):
        import fcntl

        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            listed = Path(f"/proc/self/fd/{descriptor}").iterdir()
            self._saved[status.st_ino] = frozenset(path.name for path in listed)
            return
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._saved[status.st_ino] = status.st_size

    def survives(self, path):
        """Whether `path` would be whole: its bytes or names, and its own name, are on the disk."""
        if path.name not in self._saved.get(path.parent.stat().st_ino, ()):
            return False
        if path.is_file():
            return self._saved.get(path.stat().st_ino) == path.stat().st_size
        return all(self.survives(inner) for inner in path.iterdir())
