"""Slow samplers of any order: the whole network is evaluated for every single code."""

import numpy as np
import torch
from tiny_priors import position_of

from stage2_prior.sampling.logits import choose


def next_logits(prior, sequence, labels, context, known, position, scale):
    """Logits (1, K) of one position of one image when it follows the known ones in their order."""
    rest = [p for p in range(prior.num_codes) if p not in known and p != position]
    order = torch.tensor([[*known, position, *rest]])
    grid, place = position_of(prior.grids, position)
    logits = prior(sequence, labels, context, order)[grid][:, place]
    if scale != 1:
        nobody = torch.full_like(labels, prior.num_classes)
        without = prior(sequence, nobody, context, order)[grid][:, place]
        logits = without + scale * (logits - without)
    return logits


def scale_at(settings, num_known, num_codes):
    if settings.guidance_schedule == "constant" or num_codes == 1:
        return settings.guidance_scale
    share = (num_known / (num_codes - 1)) ** settings.guidance_power
    if settings.guidance_schedule == "cosine":
        share = np.sin(np.pi / 2 * share) ** 2
    return (1 - share) * settings.first_guidance_scale + share * settings.guidance_scale


def temperature_at(settings, num_known, num_codes):
    if settings.first_temperature is None or num_codes == 1:
        return settings.temperature
    ends = [settings.first_temperature, settings.temperature]
    return float(np.interp(num_known, [0, num_codes - 1], ends))


def scale_and_draw_options(settings, num_known, num_codes):
    """Guidance scale, and options of `choose`, of a code drawn when so many others are known."""
    temperature = temperature_at(settings, num_known, num_codes)
    options = {"temperature": temperature, "top_k": settings.top_k, "top_p": settings.top_p}
    return scale_at(settings, num_known, num_codes), options


@torch.no_grad()
def draw_naively(prior, sequence, labels, context, known, steps, settings, uniform):
    """Draws one image (1, L): `steps` lists the positions of each step, all given what is known.

    Args:
        known: Known positions, in their order.
        uniform: float64 (1, L).
    """
    sequence, known = sequence.clone(), list(known)
    for step in steps:
        scale, how = scale_and_draw_options(settings, len(known), prior.num_codes)
        drawn = {}
        for position in step:
            logits = next_logits(prior, sequence, labels, context, known, position, scale)
            drawn[position] = choose(logits, uniform[:, position], **how)
        for position, code in drawn.items():
            sequence[:, position] = code
        known += step
    return sequence


@torch.no_grad()
def draw_naively_by_confidence(
    prior, sequence, labels, context, known, sizes, settings, uniforms, gumbels
):
    """Draws one image (1, L): each step draws all open codes and keeps the surest.

    Args:
        uniforms: One float64 (1, L) per step, to draw with.
        gumbels: The same, added to the log-probabilities.
    """
    sequence, known = sequence.clone(), list(known)
    for i, (size, uniform, gumbel) in enumerate(zip(sizes, uniforms, gumbels, strict=True)):
        scale, how = scale_and_draw_options(settings, len(known), prior.num_codes)
        candidates = []
        for position in range(prior.num_codes):
            if position not in known:
                logits = next_logits(prior, sequence, labels, context, known, position, scale)
                code = choose(logits, uniform[:, position], **how)
                left = 1 - (i + 1) / len(sizes)
                score = logits.double().log_softmax(dim=-1)[0, code]
                candidates.append((-(score + left * gumbel[0, position]).item(), position, code))
        for _, position, code in sorted(candidates, key=lambda c: c[0])[:size]:
            sequence[:, position] = code
            known.append(position)
    return sequence
