"""Keys and values of the positions that a transformer has read."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class KeyValueCache:
    """Keys and values of all blocks, lying without gaps whatever the length so far.

    In a plain (..., L, d) buffer the first positions would be spread over the memory of all, and
    reading them is what attention's time goes into. So the length grows, in the same memory; moving
    everything each few positions costs little of what reading it costs.

    Args:
        num_layers: How many blocks.
        batch: B.
        num_heads: Attention heads.
        length: The most positions there will be.
        head_dim: d, features per head.
        dtype: What keys and values are kept in.
        device: Where.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        batch: int,
        num_heads: int,
        length: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (2, batch, num_heads, length, head_dim)
        # A storage of its own for each block: the compiled step writes to all of them at once.
        self._memory = [
            torch.empty(math.prod(shape), dtype=dtype, device=device) for _ in range(num_layers)
        ]
        self._shape = shape
        self._length = 0
        self.blocks: list[Tensor] = []
        """Per block (2, B, heads, length, d)."""
        self.transposed_keys: list[Tensor] = []
        """Per block (B * heads, d, length)."""
        self.values: list[Tensor] = []
        """Per block (B * heads, length, d)."""

    def reserve(self, length: int) -> None:
        """Makes room for `length` positions; new ones are zero."""
        if length <= self._length:
            return
        shape = (*self._shape[:3], length, self._shape[4])
        grown = []
        for i, memory in enumerate(self._memory):
            block = memory[: math.prod(shape)].view(shape)
            if self._length:
                old = self.blocks[i].clone()
                block[:, :, :, : self._length] = old
            block[:, :, :, self._length :] = 0
            grown.append(block)
        self.blocks, self._length = grown, length
        keys_and_values = [block.flatten(1, 2).unbind() for block in grown]
        self.transposed_keys = [keys.transpose(1, 2) for keys, _ in keys_and_values]
        self.values = [values for _, values in keys_and_values]
