"""Benchmark of the PixelCNN's cached sampling against running the network for every code."""

from __future__ import annotations

import statistics
import time
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, TypeVar

import torch

from pipelines.cli.echo import say
from stage2_prior.config import PixelCNNConfig
from stage2_prior.grids import GridSpec, to_grids, to_sequence
from stage2_prior.pixelcnn.prior import PixelCNNPrior
from stage2_prior.pretrained import build_prior
from stage2_prior.sampling.logits import sample_codes
from stage2_prior.sampling.noise import addressed_uniform
from stage2_prior.spec import PriorSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

T = TypeVar("T")

_CODEBOOK_SIZE = 512
_SIDES = (8, 32)


def sample_naively(prior: PixelCNNPrior, labels: Tensor, uniform: Tensor) -> Tensor:
    """Samples int64 (B, L) by a pass over all rows for every position."""
    empty = torch.zeros_like(uniform, dtype=torch.int64, device=labels.device)
    codes, numbers = to_grids(empty, prior.grids), to_grids(uniform, prior.grids)
    for row, column in product(range(prior.grids[0].height), range(prior.grids[0].width)):
        here = (..., slice(row, row + 1), slice(column, column + 1))
        features = prior.features(tuple(grid[:, : row + 1] for grid in codes), labels)[here]
        for i, grid in enumerate(codes):
            earlier = tuple(g[here] for g in codes[:i])
            logits = prior.output(i, features, earlier)[:, :, 0, 0].float()
            grid[:, row, column] = sample_codes(logits, numbers[i][:, row, column], temperature=1.0)
    return to_sequence(codes)


@torch.no_grad()
def benchmark_pixelcnn(
    device: torch.device, batch: int = 16, repetitions: int = 5, seed: int = 0
) -> None:
    """Times both samplers with the default network on two grids, and compares their codes.

    The cached sampler is timed before and after the naive one, `repetitions` times each, so that a
    change of the machine's load shows; its median counts.
    """
    for side in _SIDES:
        torch.manual_seed(seed)
        spec = PriorSpec(grids=(GridSpec(side, side, _CODEBOOK_SIZE),))
        prior = build_prior(PixelCNNConfig(), spec).to(device).eval()
        assert isinstance(prior, PixelCNNPrior), "a PixelCNNConfig describes a PixelCNNPrior"
        labels = torch.full((batch,), prior.null_label, device=device)
        uniform = addressed_uniform(seed, torch.arange(batch, device=device), prior.num_codes)

        cached = partial(prior.sample, batch, seed=seed, batch_size=batch)
        naive = partial(sample_naively, prior, labels, uniform)
        codes = to_sequence(cached())
        before = [_seconds(cached, device)[0] for _ in range(repetitions)]
        slow, naive_codes = _seconds(naive, device)
        after = [_seconds(cached, device)[0] for _ in range(repetitions)]
        fast = statistics.median(before + after)
        same = (codes == naive_codes).all(dim=1).sum().item()
        say(
            f"pixelcnn, {batch} grids of {side}x{side}: {1000 * fast:.1f} "
            f"({1000 * min(before + after):.1f} to {1000 * max(before + after):.1f}) ms cached, "
            f"{1000 * slow:,.0f} ms naive, {slow / fast:.1f} times faster, {same} of {batch} "
            "grids identical"
        )


def _seconds(call: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """Times a call; returns seconds and its result."""
    start = time.perf_counter()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result
