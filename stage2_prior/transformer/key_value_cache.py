"""Keys and values of the positions that a transformer has read."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# What a prior holds on to between two batches; more is freed.
_MAX_KEPT_BYTES = 256 << 20


class CacheMemory:
    """The memory of a cache that is done with, for the next one of the same size.

    The first write to fresh memory costs more than all the copying of keys and values into it.
    Several threads may take and give back at a time (on a GPU, those of one stream).
    """

    def __init__(self) -> None:
        self._kept: list[list[Tensor]] = []

    def take(
        self, num_layers: int, size: int, dtype: torch.dtype, device: torch.device
    ) -> list[Tensor]:
        """Returns a tensor (size,) per block, uninitialised, each of a storage of its own."""
        try:
            memory = self._kept.pop()
        except IndexError:
            memory = []
        fits = len(memory) == num_layers and all(
            (part.numel(), part.dtype, part.device) == (size, dtype, device) for part in memory
        )
        if fits:
            return memory
        # Tensors of inference mode could not be written to outside of it.
        with torch.inference_mode(mode=False):
            return [torch.empty(size, dtype=dtype, device=device) for _ in range(num_layers)]

    def give_back(self, memory: list[Tensor]) -> None:
        """Takes back what `take` returned."""
        if memory and not self._kept and sum(part.nbytes for part in memory) <= _MAX_KEPT_BYTES:
            self._kept.append(memory)

    def __reduce__(self) -> tuple[type[CacheMemory], tuple[()]]:
        return CacheMemory, ()  # a copy of a prior starts without


class KeyValueCache:
    """Keys and values of all blocks.

    A batched product reads them fastest where they lie without gaps, whatever the length so far: in
    a plain (..., L, d) buffer the first positions are spread over the memory of all. So the length
    grows, in the same memory; moving everything each few positions costs little of what reading it
    costs. A compiled loop does not mind gaps and is spared the moving; it is fastest where the
    heads of a position lie side by side.

    `source` lends the memory, `length` is the most positions there will be, and `compiled` says
    whether a compiled loop reads them, or batched products.
    """

    def __init__(
        self,
        source: CacheMemory,
        *,
        num_layers: int,
        batch: int,
        num_heads: int,
        length: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
        compiled: bool,
    ) -> None:
        self._source = source
        self._compiled = compiled
        self._shape = (2, batch, num_heads, length, head_dim)
        # A storage of its own for each block: the compiled step writes to all of them at once.
        self._memory = source.take(num_layers, math.prod(self._shape), dtype, device)
        heads_inside = (2, batch, length, num_heads, head_dim)
        self._whole = [memory.view(heads_inside) for memory in self._memory] if compiled else []
        self._length = 0  # positions that hold something
        self.blocks: list[Tensor] = []
        """Per block (2, B, heads, length, d)."""
        self._without_gaps: list[tuple[Tensor, Tensor]] = []

    def reserve(self, length: int) -> None:
        """Makes room for `length` positions; new ones are zero."""
        reserved = self.blocks[0].shape[3] if self.blocks else 0
        if length <= reserved:
            return
        if self._compiled:
            self.blocks = [block.transpose(2, 3) for block in self._views(length)]
        else:
            self.blocks = self._moved(length)
            self._without_gaps = [_for_products(block) for block in self.blocks]
        for block in self.blocks:
            block[:, :, :, self._length :] = 0
        self._length = max(self._length, length)

    def keys_and_values(self, index: int) -> tuple[Tensor, Tensor]:
        """Returns one block's for batched products: (B * heads, d, L), (B * heads, L, d)."""
        return _for_products(self.blocks[index]) if self._compiled else self._without_gaps[index]

    def up_to(self, length: int) -> list[Tensor]:
        """Returns (2, B, length, heads, d) per block for a compiled loop, partly uninitialised."""
        assert self._compiled
        self._length = max(self._length, length)
        return self._views(length)

    def close(self) -> None:
        """Gives the memory back; the cache must not be used after it."""
        memory, self._memory = self._memory, []
        self._whole.clear()
        self._source.give_back(memory)

    def _views(self, length: int) -> list[Tensor]:
        return [memory[:, :, :length] for memory in self._whole]

    def _moved(self, length: int) -> list[Tensor]:
        shape = (*self._shape[:3], length, self._shape[4])
        grown = []
        for i, memory in enumerate(self._memory):
            block = memory[: math.prod(shape)].view(shape)
            if self._length:
                block[:, :, :, : self._length] = self.blocks[i].clone()
            grown.append(block)
        return grown


def _for_products(block: Tensor) -> tuple[Tensor, Tensor]:
    keys, values = block.flatten(1, 2)
    return keys.transpose(1, 2), values
