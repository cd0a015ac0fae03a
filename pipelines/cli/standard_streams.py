"""Standard output and error that cannot fail a command."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def protect_standard_streams() -> None:
    """Makes printing never raise, in this process's own code and in libraries.

    Characters that the encoding lacks are escaped. Output is dropped where it cannot be written,
    for example to a pipe whose reader has ended or to a full disk. A stream that is closed at the
    start becomes the null device, and so does its file descriptor: the first file that is opened
    would get it, and with it what libraries print.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    # Streams that a notebook or a test has put there are not ours to replace.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _protected(sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _protected(sys.stderr)


class _DroppingWriter(io.RawIOBase):
    """Writes bytes to `raw` and drops those that cannot be written."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int | None:
        try:
            return self._raw.write(data)
        except OSError:
            return memoryview(data).nbytes

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()


def _protected(stream: TextIO | None) -> TextIO:
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8", errors="ignore")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    raw: Any = getattr(stream.buffer, "raw", stream.buffer)  # python -u has no buffer in between
    return io.TextIOWrapper(
        io.BufferedWriter(_DroppingWriter(raw)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering or stream.write_through,
    )
