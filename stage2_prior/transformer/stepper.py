"""Decoding with a transformer, in any order, one or several codes per pass.

The network's input at step t of an order holds the code before it, its position, and the position
to predict. So any unknown position can be predicted after the same known codes: the inputs differ
in their last part only and share all cached ones. A pass holds the inputs of the codes that became
known in the pass before (each seeing those before it), then one query per code to be predicted
(each seeing all known codes and itself).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stage2_prior.sampling.logits import select_logits
from stage2_prior.sampling.stepper import CodeStepper, DecodingStart, SamplingRule
from stage2_prior.transformer.cached_network import CachedTransformer
from stage2_prior.transformer.decoding_step import CompiledStep


class TransformerStepper(CodeStepper):
    """A `CodeStepper` that can also predict several positions at once.

    Args:
        network: Of this batch, nothing read but its context.
        start: Order and known codes.
        compiled: The compiled step of `sample`, or None.
    """

    def __init__(
        self, network: CachedTransformer, start: DecodingStart, compiled: CompiledStep | None = None
    ) -> None:
        self.num_known = start.num_known
        self._network = network
        self._compiled = compiled
        self._length = start.codes.shape[1]  # stands for the start vector as a position
        self._codes = F.pad(start.codes, (0, 1))  # (B, L + 1)
        self._num_read = 0  # inputs whose keys and values are final
        self._num_computed = 0  # those of the last pass included, final if its code is accepted
        self._grid_of = network.weights.grid_of
        self.reorder(start.order)
        # Python numbers, so that a device need not be waited for.
        same_order = len(start.order) == 1
        self._grids = self._grid_of[start.order[0]].tolist() if same_order else None

    def logits(self) -> Tensor:
        """Computes the logits (B, K) of the next position; see `CodeStepper.logits`."""
        return self.next_logits(1)[:, 0]

    @torch.no_grad()
    def next_logits(self, count: int) -> Tensor:
        """Computes the logits of the next `count` positions, each given the known codes only.

        Returns:
            (B, count, K), as for `logits`.
        """
        known, read = self.num_known, self._num_read
        previous = self._previous
        last = previous[:, known : known + 1].expand(-1, count)
        sources = torch.cat([previous[:, read:known], last], dim=1)
        targets = self.order[:, read : known + count]
        inputs = self._network.embed(
            sources, self._codes.gather(1, sources.expand(len(self._codes), -1)), targets
        )
        if count == 1:
            mask = self._network.causal_mask(read, known + 1 - read)
        else:
            mask = self._network.query_mask(read, known - read, count)
        hidden = self._network.advance(inputs, read, mask)[:, known - read :]
        self._num_computed = known + 1
        return self._grid_logits(hidden, targets[:, known - read :])

    def accept(self, codes: Tensor) -> None:
        """Takes int64 (B,) as the codes of the next position."""
        self.accept_next(codes[:, None])

    @torch.no_grad()
    def accept_next(self, codes: Tensor, *, first_is_read: bool = True) -> None:
        """Takes int64 (B, n) as the codes of the next n positions.

        Args:
            codes: In order.
            first_is_read: Whether the first position was also the first of the last `next_logits`,
                if it was called since the last codes were accepted.
        """
        positions = self.order[:, self.num_known : self.num_known + codes.shape[1]]
        self._codes.scatter_(1, positions.expand(len(codes), -1), codes)
        self._num_read = min(self._num_computed, self.num_known + first_is_read)
        self._num_computed = self._num_read
        self.num_known += codes.shape[1]

    @torch.no_grad()
    def sample(self, rule: SamplingRule, uniform: Tensor) -> Tensor:
        """Samples the next position's codes, int64 (B,), by the compiled step if there is one."""
        known = self.num_known
        # A length of one is a case of its own to a compiler: it would compile twice.
        if self._compiled is None or self._num_read < known or not self._network.prefix + known:
            return super().sample(rule, uniform)
        sources, targets = self._previous[:, known, None], self.order[:, known, None]
        codes = self._codes.gather(1, sources.expand(len(self._codes), -1))
        inputs = self._network.embed(sources, codes, targets)[:, 0]
        self._num_computed = known + 1
        if self._grids is not None:
            return self._compiled(inputs, uniform, rule, known, self._grids[known])
        return self._compiled(inputs, uniform, rule, known, None, self._grid_of[targets[:, 0]])

    def reorder(self, order: Tensor) -> None:
        """Replaces the order, int64 (B or 1, L); the known positions must stay as they are."""
        self.order = order
        """int64 (B or 1, L)."""
        self._previous = F.pad(order, (1, 0), value=self._length)  # the start first
        self._grids = None

    def close(self) -> None:
        """Gives the cache's memory back."""
        self._network.cache.close()

    def _grid_logits(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, n, K) at `targets` (B or 1, n) from (B, n, E)."""
        num_grids = len(self._network.weights.grids)
        if self._grids is not None and targets.shape[1] == 1:
            return self._network.logits(hidden, self._grids[self.num_known])
        if num_grids == 1:
            return self._network.logits(hidden, 0)
        all_logits = [self._network.logits(hidden, grid) for grid in range(num_grids)]
        return select_logits(all_logits, self._grid_of[targets])
