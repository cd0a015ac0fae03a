"""Drawing codes in any order, one or several in a pass.

The network's input at step t of an order holds the code drawn last, its place, and the place asked
for. So any open position can be asked for after the same known codes: the inputs differ in their
last part only and share all cached ones. A pass holds the inputs of the codes that became known in
the pass before (each seeing those before it), then one query per code to be drawn (each seeing all
known codes and itself), whose results are independent given what is known.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stage2_prior.sampling.noise import AddressedNoise
from stage2_prior.transformer.sampler import TransformerSampler


class Drawing:
    """Sequences of which some codes are known, and what the network has read of them.

    Args:
        sampler: Holds the network's cache.
        codes: int64 (B, L); only known ones matter.
        order: int64 (B or 1, L), the known positions first.
        num_known: How many of them are known.
    """

    def __init__(
        self, sampler: TransformerSampler, codes: Tensor, order: Tensor, num_known: int
    ) -> None:
        self.order = order
        self.num_known = num_known
        self._sampler = sampler
        self._start = codes.shape[1]  # the position that stands for the start vector
        self._codes = F.pad(codes, (0, 1))  # (B, L + 1)
        self._num_read = 0  # inputs whose keys and values are final

    @property
    def codes(self) -> Tensor:
        """int64 (B, L)."""
        return self._codes[:, : self._start]

    def draw_next(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Draws the next position of the order, without taking it for known yet.

        Args:
            uniform: float64 (B, L), by position.

        Returns:
            Positions int64 (B or 1, 1) and codes int64 (B, 1).
        """
        known, batch = self.num_known, len(self._codes)
        if self._num_read < known:  # codes that were given, or drawn several at a time
            return self.draw(1, uniform)[:2]
        sources, positions = self._previous()[:, known, None], self.order[:, known, None]
        codes = self._codes.gather(1, sources.expand(batch, -1))
        numbers = uniform.gather(1, positions.expand(batch, -1))
        return positions, self._sampler.draw_next(sources, codes, positions, known, numbers)

    def draw(
        self, count: int, uniform: Tensor, *, scored: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draws the next `count` positions of the order, without taking them for known yet.

        Args:
            count: n.
            uniform: float64 (B, L), by position.
            scored: Whether the log-probabilities are wanted.

        Returns:
            Positions int64 (B or 1, n), codes int64 (B, n) and log-probabilities float32 (B, n).
        """
        known, read, batch = self.num_known, self._num_read, len(self._codes)
        previous = self._previous()
        last = previous[:, known : known + 1]
        sources = torch.cat([previous[:, read:known], last.expand(-1, count)], dim=1)
        targets = self.order[:, read : known + count]
        inputs = self._sampler.embed(
            sources, self._codes.gather(1, sources.expand(batch, -1)), targets
        )
        if count == 1:
            mask = self._sampler.causal_rows(read, known + 1 - read)
        else:
            mask = self._sampler.query_rows(read, known - read, count)
        hidden = self._sampler.advance(inputs, read, mask)[:, known - read :]
        positions = targets[:, known - read :]
        numbers = uniform.gather(1, positions.expand(batch, -1))
        return positions, *self._sampler.draw(hidden, positions, known, numbers, scored=scored)

    def accept(self, positions: Tensor, codes: Tensor, *, first_is_read: bool) -> None:
        """Takes codes (B, n) at positions (B or 1, n), the next ones of the order, for known.

        Args:
            positions: int64.
            codes: int64.
            first_is_read: Whether the first of them was the first query of the last `draw`, whose
                keys and values are then those of the input that asked for it.
        """
        self._codes.scatter_(1, positions.expand(len(codes), -1), codes)
        self._num_read = self.num_known + first_is_read
        self.num_known += positions.shape[1]

    def _previous(self) -> Tensor:
        """What comes before each position of the order, the start at first: (B or 1, L + 1)."""
        return F.pad(self.order, (1, 0), value=self._start)


def draw_in_order(drawing: Drawing, sizes: list[int], uniform: Tensor) -> Tensor:
    """Draws the open positions as the order has them, `sizes` at a time: int64 (B, L).

    With sizes of 1 this is exact: each code is drawn given all codes before it. `uniform` is
    float64 (B, L), by position.
    """
    for size in sizes:
        if size == 1:
            positions, codes = drawing.draw_next(uniform)
        else:
            positions, codes, _ = drawing.draw(size, uniform)
        drawing.accept(positions, codes, first_is_read=True)
    return drawing.codes


def draw_by_confidence(drawing: Drawing, sizes: list[int], noise: AddressedNoise) -> Tensor:
    """Draws all open positions in each step and keeps the surest: int64 (B, L).

    Chang et al. 2022, "MaskGIT", section 3.3: the confidence of a code is its log-probability plus
    Gumbel noise, which falls linearly to none at the last step and keeps samples from being all
    alike.
    """
    batch, length = drawing.codes.shape
    drawing.order = drawing.order.expand(batch, -1)  # each image goes its own way
    for step, size in enumerate(sizes):
        known = drawing.num_known
        drawn_with, chosen_with = (noise.block(2 + 2 * step + i) for i in range(2))
        positions, codes, scores = drawing.draw(length - known, drawn_with, scored=True)
        left = 1 - (step + 1) / len(sizes)
        gumbel = -(-chosen_with.gather(1, positions).clamp(min=2.0**-53).log()).log()
        surest = (scores.to(gumbel) + left * gumbel).argsort(dim=1, descending=True)
        surest = surest.to(positions.device)
        positions = positions.gather(1, surest)
        drawing.order = torch.cat([drawing.order[:, :known], positions], dim=1)
        drawing.accept(positions[:, :size], codes.gather(1, surest)[:, :size], first_is_read=False)
    return drawing.codes
