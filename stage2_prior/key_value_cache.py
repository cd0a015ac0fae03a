"""Keys and values of the positions that a transformer has read."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class KeyValueCache:
    """Keys and values of all blocks.

    A batched product reads them fastest where they lie without gaps, whatever the length so far: in
    a plain (..., L, d) buffer the first positions are spread over the memory of all. So the length
    grows, in the same memory; moving everything each few positions costs little of what reading it
    costs. A compiled loop does not mind gaps, and is spared the moving.

    Args:
        moves: Whether they are moved to lie without gaps.
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
        moves: bool,
    ) -> None:
        self._moves = moves
        shape = (2, batch, num_heads, length, head_dim)
        # A storage of its own for each block: the compiled step writes to all of them at once.
        self._memory = [
            torch.zeros(math.prod(shape), dtype=dtype, device=device) for _ in range(num_layers)
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
        grown = self._moved(length) if self._moves else self.up_to(length)
        self.blocks, self._length = grown, length
        keys_and_values = [block.flatten(1, 2).unbind() for block in grown]
        self.transposed_keys = [keys.transpose(1, 2) for keys, _ in keys_and_values]
        self.values = [values for _, values in keys_and_values]

    def up_to(self, length: int) -> list[Tensor]:
        """Per block (2, B, heads, length, d), where nothing is moved: a part of all there is."""
        assert not self._moves
        return [memory.view(self._shape)[:, :, :, :length] for memory in self._memory]

    def _moved(self, length: int) -> list[Tensor]:
        shape = (*self._shape[:3], length, self._shape[4])
        grown = []
        for i, memory in enumerate(self._memory):
            block = memory[: math.prod(shape)].view(shape)
            if self._length:
                old = self.blocks[i].clone()
                block[:, :, :, : self._length] = old
            block[:, :, :, self._length :] = 0
            grown.append(block)
        return grown
