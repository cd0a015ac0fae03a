"""Reading of arrays from untrusted files."""

from __future__ import annotations

import math
from gzip import GzipFile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

PART = 2**20  # bytes read at once


def read_array(
    file: IO[bytes] | GzipFile, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Reads an array in C order in parts, so that no more memory is filled than there are data.

    Raises:
        EOFError: The file ends before the array.
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
