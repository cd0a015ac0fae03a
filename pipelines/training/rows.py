"""Rows of the training data, on the device that trains."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MOST_OF_FREE_MEMORY = 0.25
"""Share of a GPU's free memory that one array may take; the rest is for weights and activations."""
_CHUNK_BYTES = 64 << 20
"""Bytes that are copied to a GPU at a time."""

Source: TypeAlias = NDArray[np.uint8] | Tensor


class DeviceRows:
    """Random rows of an array or a tensor in the CPU's memory, as batches on a device.

    A GPU takes the whole array once if it fits into a quarter of its free memory, as most image
    sets do in uint8: a batch is then gathered where it is needed, faster than any copy, and only
    its indices cross the bus. From a larger array the CPU gathers each batch into pinned memory,
    from which it is copied without waiting. No thread prefetches: a training step on a GPU waits
    for nothing, so that the CPU gathers the next batch while the GPU still computes the last one.

    Batches are the same either way. The GPU's copy lives as long as this object.

    Args:
        source: (N, ...), of any dtype; a `np.memmap` too.
        device: Of the batches.
    """

    def __init__(self, source: Source, device: torch.device) -> None:
        self._source = source
        self._device = device
        self._resident = _copied(source, device) if _fits(source, device) else None

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Returns the rows at int64 `indices` (B,), which are on the CPU, on the device."""
        if self._resident is not None:
            return self._resident[send(indices, self._device)]
        return send(_gathered(self._source, indices), self._device)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a tensor from the CPU to `device`; to a GPU without waiting for it."""
    if device.type in ("cpu", "mps"):  # which share the CPU's memory
        return tensor.to(device)
    # Other memory than pinned would make the CPU wait until the GPU has read it.
    return tensor.pin_memory().to(device, non_blocking=True)


def _gathered(source: Source, indices: Tensor) -> Tensor:
    if isinstance(source, Tensor):
        return source[indices]
    return torch.from_numpy(source[indices.numpy()])


def _fits(source: Source, device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return source.nbytes <= _MOST_OF_FREE_MEMORY * free


def _copied(source: Source, device: torch.device) -> Tensor:
    """Copies all rows to `device` in chunks, so that a file's are never in memory as a whole."""
    everything = torch.arange(len(source))
    rows = max(1, _CHUNK_BYTES * len(source) // max(1, source.nbytes))
    first = _gathered(source, everything[:1])
    copied = torch.empty((len(source), *first.shape[1:]), dtype=first.dtype, device=device)
    for start in range(0, len(source), rows):
        chunk = slice(start, start + rows)
        copied[chunk] = _gathered(source, everything[chunk])
    return copied
