"""From logits to a drawn code: pure functions, each doing one thing to (B, K)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stage2_prior.config import SamplingSettings


def guide(conditional: Tensor, unconditional: Tensor, scale: float | Tensor) -> Tensor:
    """Classifier-free guidance on logits (Ho and Salimans 2022, equation 6 with scale = 1 + w).

    Scale 1 gives the conditional logits, 0 the unconditional ones.
    """
    return unconditional + scale * (conditional - unconditional)


def guidance_scales(settings: SamplingSettings, num_codes: int) -> list[float]:
    """The guidance scale of each code, in the order in which they are drawn: L numbers.

    A schedule goes from `first_guidance_scale`, 1 being the conditional distribution, at the first
    code to `guidance_scale` at the last: with t the share of the other codes that are known, in
    [0, 1], and p the power, linear is first + (last - first) t^p and cosine
    first + (last - first) (1 - cos(pi t^p)) / 2 (the power-cosine schedule of Gao et al. 2023,
    "Masked Diffusion Transformer is a Strong Image Synthesizer", along the codes of an image
    instead of the steps of a diffusion).
    """
    first, last = settings.first_guidance_scale, settings.guidance_scale
    schedule = settings.guidance_schedule
    if schedule == "constant" or num_codes == 1:
        return [last] * num_codes
    shares = [share**settings.guidance_power for share in _shares_known(num_codes)]
    if schedule == "cosine":
        shares = [(1 - math.cos(math.pi * share)) / 2 for share in shares]
    return _between(first, last, shares)


def temperatures(settings: SamplingSettings, num_codes: int) -> list[float]:
    """The temperature of each code, in the order in which they are drawn: L numbers.

    With t the share of the other codes that are known, first + (last - first) t.
    """
    first, last = settings.first_temperature, settings.temperature
    if first is None or num_codes == 1:
        return [last] * num_codes
    return _between(first, last, _shares_known(num_codes))


def _shares_known(num_codes: int) -> list[float]:
    """The share of the other codes that are known when each of several is drawn, 0 to 1."""
    return [i / (num_codes - 1) for i in range(num_codes)]


def _between(first: float, last: float, shares: list[float]) -> list[float]:
    """`first` at a share of 0, `last` at the last share, which is 1, to the bit."""
    return [first + (last - first) * share for share in shares[:-1]] + [last]


def tempered(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Logits (B, K) divided by a temperature above 0, their largest at 0: none overflows."""
    return (logits - logits.amax(dim=-1, keepdim=True)) / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Sets all but the k largest logits (B, K) to -inf; equal ones at the edge all stay."""
    if k >= logits.shape[-1]:
        return logits
    smallest_kept = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < smallest_kept, float("-inf"))


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keeps the smallest set of likeliest codes whose probability reaches p.

    Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", equation 3.
    """
    if p >= 1:
        return logits  # the sum of all others may reach 1 by rounding
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities  # mass of all likelier codes
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= p)
    return logits.masked_fill(dropped, float("-inf"))


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draws from softmax(logits) by inverting its distribution function.

    Args:
        logits: float64 (B, K), -inf allowed but not everywhere.
        uniform: float64 (B,) in [0, 1).

    Returns:
        int64 (B,).
    """
    cumulative = logits.softmax(dim=-1).cumsum(dim=-1)
    threshold = uniform[:, None] * cumulative[:, -1:]  # the sum may miss 1 by rounding
    # right=True never lands on a code of probability zero, whose step has no width.
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)


def choose(
    logits: Tensor,
    uniform: Tensor,
    *,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Draws codes: temperature, then top-k, then top-p, then the draw.

    Args:
        logits: float (B, K), guidance already applied.
        uniform: float64 (B,) in [0, 1), on a device that knows float64 (MPS does not); the
            probabilities are computed there.
        temperature: Of these codes, see `temperatures`; 0 takes the likeliest.
        top_k: Keeps the k likeliest codes; None keeps all.
        top_p: Keeps the likeliest codes that reach this probability together; None keeps all.

    Returns:
        int64 (B,), on the device of `logits`.
    """
    device = logits.device
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.to(uniform.device).double()
    if temperature != 1:
        logits = tempered(logits, temperature)
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    return draw(logits, uniform).to(device)
