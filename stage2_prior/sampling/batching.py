"""Splitting a sampling request into batches, each with the noise of its samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stage2_prior.sampling.noise import AddressedNoise
from stage2_prior.sampling.ordering import known_first
from stage2_prior.sampling.padding import rows_to_pad
from stage2_prior.sampling.settings import SamplingSettings
from stage2_prior.sampling.stepper import DecodingStart


@dataclass(frozen=True, kw_only=True)
class SamplingRequest:
    """Checked tensors of all samples, on the prior's device."""

    labels: Tensor
    """int64 (N,), as for `CodePrior.forward`."""
    context: Tensor | None
    """(N, Lc) or (N, Lc, D), as for `CodePrior.forward`."""
    codes: Tensor
    """int64 (N, L), by position; only known ones matter."""
    known: Tensor
    """bool (N, L), by position."""
    order: Tensor
    """int64 (N, L) or (1, L), the order of sampling."""
    settings: SamplingSettings
    """Checked, `compile` on or off."""
    seed: int
    """In [0, 2^63)."""
    first_index: int
    """Index of the first sample."""


@dataclass(frozen=True)
class SamplingBatch:
    """Samples that are decoded together: all have the same number of known codes."""

    rows: Tensor
    """int64 (n,), indices into the request; the other tensors may be padded with more rows."""
    labels: Tensor
    """int64 (B,)."""
    context: Tensor | None
    """(B, Lc) or (B, Lc, D)."""
    start: DecodingStart
    """Order and known codes."""
    noise: AddressedNoise
    """Random numbers of these samples."""

    def with_unlabelled_copies(self, null_label: int) -> SamplingBatch:
        """Appends a copy of every row without its label, for classifier-free guidance."""
        order, codes = self.start.order, self.start.codes
        return SamplingBatch(
            self.rows,
            torch.cat([self.labels, torch.full_like(self.labels, null_label)]),
            None if self.context is None else torch.cat([self.context, self.context]),
            DecodingStart(
                order if len(order) == 1 else torch.cat([order, order]),
                torch.cat([codes, codes]),
                self.start.num_known,
            ),
            self.noise,
        )


def split_into_batches(request: SamplingRequest, batch_size: int) -> Iterator[SamplingBatch]:
    """Splits a request into batches of at most `batch_size` samples with equally many known codes.

    Under `compile`, all batches have one size, a multiple of `ROW_MULTIPLE`: smaller ones repeat
    their first sample, since compiled code knows one size.
    """
    num_known = request.known.sum(dim=1).cpu()
    largest = min(len(num_known), batch_size)
    multiple = largest + rows_to_pad(largest) if request.settings.compile == "on" else 1
    for number in sorted(set(num_known.tolist())):
        for rows in (num_known == number).nonzero()[:, 0].split(batch_size):
            padded = F.pad(rows, (0, rows_to_pad(len(rows), multiple)), value=int(rows[0]))
            yield _batch(request, rows, padded, number)


def _batch(request: SamplingRequest, rows: Tensor, padded: Tensor, num_known: int) -> SamplingBatch:
    settings, device = request.settings, request.codes.device
    # Random numbers are float64, which MPS does not know.
    noise_device = "cpu" if device.type == "mps" else device
    indices = (padded + request.first_index).to(noise_device)
    noise = AddressedNoise(request.seed, indices, num_codes=request.codes.shape[1])
    at = padded.to(device)
    order = request.order if len(request.order) == 1 else request.order[at]
    if settings.num_steps is not None and settings.step_order == "random":
        order = noise.block(1).argsort(dim=1).to(device)
    if num_known:
        known = request.known[at]
        order = known_first(order.expand(len(known), -1), known)
    if (order == order[:1]).all():
        order = order[:1]
    return SamplingBatch(
        rows,
        request.labels[at],
        None if request.context is None else request.context[at],
        DecodingStart(order, request.codes[at], num_known),
        noise,
    )
