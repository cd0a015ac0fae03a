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
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

_DTYPE_NAMES = {torch.int32: "I32", torch.int64: "I64"}


def stream_safetensors(
    path: Path,
    layout: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    batches: Iterable[Mapping[str, Tensor]],
) -> None:
    """Writes several tensors of one length to a new file, a few rows of all at a time.

    Args:
        path: A new file.
        layout: dtype and full shape (N, ...) of each tensor.
        batches: The next rows (n, ...) of every tensor; N in all.

    Raises:
        FileExistsError: The file exists.
        OSError: The disk is full or refuses.
        ValueError: Rows are not those of the layout, or are more or fewer than it has.
    """
    (num_rows,) = {shape[0] for _, shape in layout.values()}
    header, ends, end = {}, {}, 0
    # Widest entries first, as the library does: every tensor starts at a multiple of its width.
    for name, (dtype, shape) in sorted(layout.items(), key=lambda item: -item[1][0].itemsize):
        start, end = end, end + math.prod(shape) * dtype.itemsize
        ends[name] = start
        dtype_name = _DTYPE_NAMES[dtype]
        header[name] = {"dtype": dtype_name, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight bytes
    with path.open("xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)  # refused at once where the disk has no room
        written = 0
        for rows in batches:
            count = len(next(iter(rows.values())))
            written += count
            if written > num_rows:
                raise ValueError(f"{num_rows} rows were announced for {path}, got more")
            for name, (dtype, shape) in layout.items():
                tensor, wanted = rows[name], (count, *shape[1:])
                if (tensor.dtype, tuple(tensor.shape)) != (dtype, wanted):
                    raise ValueError(
                        f"rows of {name} must be {dtype} {wanted}, got {tensor.dtype} "
                        f"{tuple(tensor.shape)}"
                    )
                content = tensor.contiguous().numpy().tobytes()
                file.seek(8 + len(text) + ends[name])
                file.write(content)
                ends[name] += len(content)
        if written != num_rows:
            raise ValueError(f"{num_rows} rows were announced for {path}, got {written}")
        file.flush()
        os.fsync(file.fileno())
