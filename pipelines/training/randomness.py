"""Random seeds and the order of examples as pure functions, so that no state is saved."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def derive_seed(*address: int | str) -> int:
    """Derives a seed in [0, 2**63) from an address such as `(seed, "vqvae", step, rank)`.

    A hash and not a sum: neighbouring addresses, and the same step of neighbouring seeds, must
    not share a stream.
    """
    text = "/".join(map(str, address)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1


class ExampleOrder:
    """Order of the training examples over all epochs: same seed, same order.

    The permutations of all epochs follow one another without a gap; each batch takes the next
    `batch_size` of them. Every example is therefore seen once per epoch, none is dropped, all
    batches are full (a batch may reach into the next epoch), and a set smaller than a batch works.

    Raises:
        ValueError: If there are no examples.
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int) -> None:
        if num_examples < 1:
            raise ValueError("the training split must hold at least 1 example, got 0")
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.seed = seed
        self._cached_epoch = -1
        self._cached_permutation = torch.empty(0, dtype=torch.int64)

    def batch(self, step: int) -> Tensor:
        """Returns the indices of step `step` (0 for the first), int64 (batch_size,), on the CPU."""
        start = step * self.batch_size
        end = start + self.batch_size
        pieces = []
        while start < end:
            epoch, offset = divmod(start, self.num_examples)
            piece = self._permutation(epoch)[offset : offset + end - start]
            pieces.append(piece)
            start += len(piece)
        return torch.cat(pieces)

    def _permutation(self, epoch: int) -> Tensor:
        if epoch != self._cached_epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "epoch", epoch))
            self._cached_permutation = torch.randperm(self.num_examples, generator=generator)
            self._cached_epoch = epoch
        return self._cached_permutation
