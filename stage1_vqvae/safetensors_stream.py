"""Writing a safetensors file row by row, without holding its tensors in memory.

The format (a length, a JSON header with every tensor's dtype, shape and byte range, then the raw
bytes) fixes where each row lies as soon as the shapes are known; the library itself only writes
tensors that are whole in memory.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

_DTYPE_NAMES = {torch.int32: "I32", torch.int64: "I64"}


class SafetensorsWriter:
    """Fills the first axis of several tensors together, a few rows at a time.

        with SafetensorsWriter(path, {"codes": (torch.int32, (1000, 7, 7))}) as writer:
            writer.append({"codes": rows})      # int32 (n, 7, 7), 1000 rows in all

    Args:
        path: A new file.
        layout: dtype and full shape of each tensor; the first axis is the same for all.
    """

    def __init__(
        self, path: Path, layout: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
    ) -> None:
        self._path = path
        self._layout = layout
        self._rows = 0
        header, self._offsets, end = {}, {}, 0
        # Widest entries first, as the library does: every tensor starts at a multiple of its width.
        for name, (dtype, shape) in sorted(
            layout.items(), key=lambda item: item[1][0].itemsize, reverse=True
        ):
            start, end = end, end + math.prod(shape) * dtype.itemsize
            self._offsets[name] = start
            header[name] = {
                "dtype": _DTYPE_NAMES[dtype],
                "shape": list(shape),
                "data_offsets": [start, end],
            }
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight bytes
        self._file = path.open("xb")
        self._data_start = 8 + len(text)
        try:
            self._file.write(struct.pack("<Q", len(text)) + text)
            self._file.truncate(self._data_start + end)
        except OSError:
            with suppress(OSError):  # of the same full disk
                self._file.close()
            raise

    def append(self, rows: Mapping[str, Tensor]) -> None:
        """Writes the next rows, (n, ...) of every tensor of the layout.

        Raises:
            ValueError: The rows are not those of the layout, or are more than it has.
        """
        counts = {len(tensor) for tensor in rows.values()}
        if rows.keys() != self._layout.keys() or len(counts) != 1:
            raise ValueError(
                f"rows of {sorted(self._layout)} of one length are required, got {sorted(rows)} of "
                f"lengths {sorted(counts)}"
            )
        (count,) = counts
        for name, tensor in rows.items():
            dtype, shape = self._layout[name]
            if tensor.dtype != dtype or tensor.shape[1:] != shape[1:]:
                raise ValueError(
                    f"rows of {name} must be {dtype} {shape[1:]}, got {tensor.dtype} "
                    f"{tuple(tensor.shape[1:])}"
                )
            if self._rows + count > shape[0]:
                raise ValueError(f"{name} has {shape[0]} rows, got at least {self._rows + count}")
            row_bytes = math.prod(shape[1:]) * dtype.itemsize
            self._file.seek(self._data_start + self._offsets[name] + self._rows * row_bytes)
            self._file.write(tensor.contiguous().numpy().tobytes())
        self._rows += count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()
        expected = next(iter(self._layout.values()))[1][0]
        if exception is None and self._rows != expected:
            raise ValueError(f"{expected} rows were announced for {self._path}, got {self._rows}")
