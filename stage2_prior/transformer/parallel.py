"""Parallel decoding: several codes per step, independent of each other given the known ones."""

from __future__ import annotations

import torch
from torch import Tensor

from stage2_prior.sampling.noise import AddressedNoise
from stage2_prior.sampling.stepper import SamplingRule
from stage2_prior.transformer.stepper import TransformerStepper


def sample_in_steps(
    stepper: TransformerStepper, rule: SamplingRule, sizes: list[int], uniform: Tensor
) -> Tensor:
    """Samples the unknown positions in their order, `sizes` at a time.

    Args:
        stepper: Decodes the batch, with `rule.copies` rows per image.
        rule: How to sample.
        sizes: Positions of each step; with 1 each this is `sample_in_order`.
        uniform: float64 (B, n), one number per unknown position, in order.

    Returns:
        int64 (B, n), in order.
    """
    sampled = []
    for numbers in torch.split(uniform, sizes, dim=1):
        codes, _ = _sample(stepper, rule, numbers)
        stepper.accept_next(codes.repeat(rule.copies, 1))
        sampled.append(codes)
    return torch.cat(sampled, dim=1)


def sample_by_confidence(
    stepper: TransformerStepper, rule: SamplingRule, sizes: list[int], noise: AddressedNoise
) -> tuple[Tensor, Tensor]:
    """Samples all unknown positions in each step and keeps the most confident ones.

    Chang et al. 2022, "MaskGIT", section 3.3: the confidence of a code is its log-probability plus
    Gumbel noise, which falls linearly to none at the last step and keeps samples from being all
    alike.

    Returns:
        Positions and codes, both int64 (B, n).
    """
    batch, first = len(noise.samples), stepper.num_known
    order = stepper.order[:batch].expand(batch, -1)  # each image has its own order
    kept = []
    for step, size in enumerate(sizes):
        known = stepper.num_known
        uniform, uniform_of_gumbel = (noise.block(2 + 2 * step + i) for i in range(2))
        positions = order[:, known:]
        at = positions.to(uniform.device)
        codes, logits = _sample(stepper, rule, uniform.gather(1, at))
        scores = logits.log_softmax(dim=-1).gather(-1, codes[..., None])[..., 0]
        left = 1 - (step + 1) / len(sizes)
        gumbel = -(-uniform_of_gumbel.gather(1, at).clamp(min=2.0**-53).log()).log()
        most_confident = (scores.to(gumbel.device).double() + left * gumbel).argsort(
            dim=1, descending=True
        )
        most_confident = most_confident.to(positions.device)
        order = torch.cat([order[:, :known], positions.gather(1, most_confident)], dim=1)
        stepper.reorder(order.repeat(rule.copies, 1))
        codes = codes.gather(1, most_confident)[:, :size]
        stepper.accept_next(codes.repeat(rule.copies, 1), first_is_read=False)
        kept.append(codes)
    return order[:, first:], torch.cat(kept, dim=1)


def _sample(
    stepper: TransformerStepper, rule: SamplingRule, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """Samples the next n positions: codes (B, n) and guided logits (B, n, K)."""
    logits = stepper.next_logits(uniform.shape[1])
    codes, guided = rule(logits.flatten(0, 1), uniform.flatten(), stepper.num_known)
    return codes.view(uniform.shape), guided.view(*uniform.shape, -1)
