"""Reading files that others made: regular ones only, and never more memory than they hold data."""

from __future__ import annotations

import math
from gzip import GzipFile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.names import printable

PART = 2**20  # bytes read at once


def require_file(path: Path, what: str) -> None:
    """Refuses a path that is no regular file: reading a pipe or a device may never end.

    Args:
        path: The file.
        what: What it should be, such as `npz file`.

    Raises:
        FileNotFoundError: There is nothing at `path`.
        IsADirectoryError: `path` is a folder.
        ValueError: `path` is a pipe, a socket or a device.
    """
    if path.is_file():
        return
    name = printable(path)
    if not path.exists():
        raise FileNotFoundError(f"the {what} {name} does not exist: check the path")
    if path.is_dir():
        raise IsADirectoryError(f"{name} must be an {what}, but it is a folder: name a file in it")
    raise ValueError(f"{name} must be an {what}, but it is no regular file: copy it to one")


def read_array(
    file: IO[bytes] | GzipFile, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Reads an array in parts, so that memory is filled only as fast as data arrive.

    Args:
        file: Where the elements are, in C order.
        shape: The array's shape.
        dtype: Its type, of at least one byte.

    Raises:
        EOFError: The file ends before the array does.
        ValueError: The shape has too many axes, or none that an array could have.
        MemoryError: The system does not grant so much memory.
    """
    array = np.empty(math.prod(shape), dtype)
    data = array.view(np.uint8).data
    done = 0
    while done < len(data):
        part = file.read(min(PART, len(data) - done))
        if not part:
            raise EOFError(f"it ends after {done:,} of {len(data):,} bytes")
        data[done : done + len(part)] = part
        done += len(part)
    return array.reshape(shape)


def one_line(error: Exception) -> str:
    """Returns the first line of an error's message, to go on with after a comma or in brackets."""
    lines = str(error).splitlines()
    return printable(lines[0]).rstrip(".") if lines else type(error).__name__
