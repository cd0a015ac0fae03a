"""From logits to a sampled code: pure functions, each doing one thing to (B, K)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stage2_prior.sampling.settings import SamplingSettings

# The logit of a code that a grid does not have: probability 0, and finite, so that guidance's
# difference of two of them is 0 and not NaN.
NO_CODE = -1e30


def guide(conditional: Tensor, unconditional: Tensor, scale: float | Tensor) -> Tensor:
    """Classifier-free guidance on logits (Ho and Salimans 2022, equation 6 with scale = 1 + w).

    Scale 1 gives the conditional logits, 0 the unconditional ones.
    """
    return unconditional + scale * (conditional - unconditional)


def guidance_scales(settings: SamplingSettings, num_codes: int) -> list[float]:
    """Computes the guidance scale of each code, in the order of sampling: L numbers.

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
    shares = [share**settings.guidance_power for share in _known_fractions(num_codes)]
    if schedule == "cosine":
        shares = [(1 - math.cos(math.pi * share)) / 2 for share in shares]
    return _interpolate(first, last, shares)


def temperatures(settings: SamplingSettings, num_codes: int) -> list[float]:
    """Computes the temperature of each code, in the order of sampling: L numbers.

    With t the share of the other codes that are known, first + (last - first) t.
    """
    first, last = settings.first_temperature, settings.temperature
    if first is None or num_codes == 1:
        return [last] * num_codes
    return _interpolate(first, last, _known_fractions(num_codes))


def _known_fractions(num_codes: int) -> list[float]:
    """Computes which fraction of the other codes is known when each code is sampled."""
    return [i / (num_codes - 1) for i in range(num_codes)]


def _interpolate(first: float, last: float, shares: list[float]) -> list[float]:
    """Interpolates from `first` at 0 to exactly `last` at the last share, which is 1."""
    return [first + (last - first) * share for share in shares[:-1]] + [last]


def apply_temperature(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Divides logits (B, K) by a temperature above 0; the largest becomes 0, so none overflows."""
    return (logits - logits.amax(dim=-1, keepdim=True)) / temperature


def top_k_filter(logits: Tensor, k: int) -> Tensor:
    """Sets all but the k largest logits (B, K) to -inf; ties with the k-th are kept."""
    if k >= logits.shape[-1]:
        return logits
    smallest_kept = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < smallest_kept, float("-inf"))


def top_p_filter(logits: Tensor, p: float) -> Tensor:
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


def sample_categorical(logits: Tensor, uniform: Tensor) -> Tensor:
    """Samples from softmax(logits) by inverting its cumulative distribution function.

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


def select_logits(all_logits: list[Tensor], grid_of: Tensor) -> Tensor:
    """Selects each row's logits from those of several grids.

    Args:
        all_logits: float (..., K_i) per grid.
        grid_of: int64, broadcastable to (...): the grid of each row.

    Returns:
        float (..., K), K being the largest K_i; `NO_CODE` for codes that the row's grid lacks.
    """
    widest = max(logits.shape[-1] for logits in all_logits)
    padded = [F.pad(x, (0, widest - x.shape[-1]), value=NO_CODE) for x in all_logits]
    logits = padded[0]
    for grid, others in enumerate(padded[1:], start=1):
        logits = torch.where(grid_of[..., None] == grid, others, logits)
    return logits


def sample_codes(
    logits: Tensor,
    uniform: Tensor,
    *,
    temperature: float | Tensor,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Samples codes: temperature, then top-k, then top-p, then one sample of what is left.

    Args:
        logits: float (B, K), guidance already applied.
        uniform: float64 (B,) in [0, 1), on a device that knows float64 (MPS does not); the
            probabilities are computed there.
        temperature: A float, 0 for the likeliest code; or a tensor () above 0, whose value compiled
            code need not know.
        top_k: Keeps the k likeliest codes; None keeps all.
        top_p: Keeps the likeliest codes that reach this probability together; None keeps all.

    Returns:
        int64 (B,), on the device of `logits`.
    """
    device = logits.device
    if not isinstance(temperature, Tensor) and temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.to(uniform.device).double()
    if isinstance(temperature, Tensor) or temperature != 1:
        logits = apply_temperature(logits, temperature)
    if top_k is not None:
        logits = top_k_filter(logits, top_k)
    if top_p is not None:
        logits = top_p_filter(logits, top_p)
    return sample_categorical(logits, uniform).to(device)


def guide_and_sample(
    logits: Tensor,
    uniform: Tensor,
    settings: SamplingSettings,
    *,
    guidance_scale: float | Tensor,
    temperature: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """Applies classifier-free guidance to logits and samples codes from the result.

    Args:
        logits: float (B, K); under guidance (2 B, K), the second half without labels.
        uniform: As for `sample_codes`.
        settings: Whether to guide, top-k and top-p.
        guidance_scale: Of these codes.
        temperature: As for `sample_codes`.

    Returns:
        int64 (B,) codes and float (B, K) guided logits.
    """
    if settings.guided:
        conditional, unconditional = logits.chunk(2)
        logits = guide(conditional, unconditional, guidance_scale)
    codes = sample_codes(
        logits, uniform, temperature=temperature, top_k=settings.top_k, top_p=settings.top_p
    )
    return codes, logits
