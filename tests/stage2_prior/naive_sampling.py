"""A sampler that evaluates the whole network for every single code, and exact probabilities."""

import numpy as np
import torch
from references import splitmix_uniform, transformed_probabilities
from tiny_priors import all_sequences, position_in_grid, prediction_order

from stage2_prior.sampling.logits import sample_codes


def uniform_block(seed, indices, num_codes, block=0):
    """float64 (B, L): the random numbers of samples by the documented formula."""
    first = block * num_codes
    rows = [[splitmix_uniform(seed, i, first + p) for p in range(num_codes)] for i in indices]
    return torch.tensor(rows, dtype=torch.float64)


def network_logits(prior, sequence, labels, context, position, order=None):
    """Logits (B, K) of one position, by teacher forcing; `order` is a list or None."""
    arguments = (sequence, labels, context)
    if order is not None:
        arguments += (torch.tensor([order]).expand(len(sequence), -1),)
    grid, place = position_in_grid(prior.grids, position)
    return prior(*arguments)[grid][:, place]


def guided_logits(prior, sequence, labels, context, known, position, scale):
    """Logits (B, K) of a position when it follows the known ones in their order."""
    order = None
    if prior.any_order:
        rest = [p for p in range(prior.num_codes) if p not in known and p != position]
        order = [*known, position, *rest]
    logits = network_logits(prior, sequence, labels, context, position, order)
    if scale != 1:
        null = torch.full_like(labels, prior.num_classes)
        without = network_logits(prior, sequence, null, context, position, order)
        logits = without + scale * (logits - without)
    return logits


def scale_and_transforms(settings, num_known, num_codes):
    """Guidance scale, and the transforms of the logits, when so many other codes are known."""
    last = settings.guidance_scale
    if settings.guidance_schedule == "constant" or num_codes == 1:
        scale = last
    else:
        share = (num_known / (num_codes - 1)) ** settings.guidance_power
        if settings.guidance_schedule == "cosine":
            share = np.sin(np.pi / 2 * share) ** 2
        scale = (1 - share) * settings.first_guidance_scale + share * last
    temperature = settings.temperature
    if settings.first_temperature is not None and num_codes > 1:
        ends = [settings.first_temperature, settings.temperature]
        temperature = float(np.interp(num_known, [0, num_codes - 1], ends))
    transforms = {"temperature": temperature, "top_k": settings.top_k, "top_p": settings.top_p}
    return scale, transforms


@torch.no_grad()
def sample_naively(prior, sequence, labels, context, known, steps, settings, uniform):
    """Samples int64 (B, L): `steps` lists the positions of each step, all given what is known.

    Args:
        sequence: int64 (B, L), 0 where unknown.
        known: Known positions, in their order.
        uniform: float64 (B, L).
    """
    sequence, known = sequence.clone(), list(known)
    for step in steps:
        scale, transforms = scale_and_transforms(settings, len(known), prior.num_codes)
        sampled = {}
        for position in step:
            logits = guided_logits(prior, sequence, labels, context, known, position, scale)
            sampled[position] = sample_codes(logits, uniform[:, position], **transforms)
        for position, codes in sampled.items():
            sequence[:, position] = codes
        known += step
    return sequence


@torch.no_grad()
def sample_naively_by_confidence(
    prior, sequence, labels, context, known, sizes, settings, uniforms, gumbels
):
    """Samples one image (1, L): each step samples all unknown codes and keeps the likeliest.

    Args:
        uniforms: One float64 (1, L) per step, to sample with.
        gumbels: The same, added to the log-probabilities.
    """
    sequence, known = sequence.clone(), list(known)
    for i, (size, uniform, gumbel) in enumerate(zip(sizes, uniforms, gumbels, strict=True)):
        scale, transforms = scale_and_transforms(settings, len(known), prior.num_codes)
        candidates = []
        for position in range(prior.num_codes):
            if position not in known:
                logits = guided_logits(prior, sequence, labels, context, known, position, scale)
                code = sample_codes(logits, uniform[:, position], **transforms)
                left = 1 - (i + 1) / len(sizes)
                score = logits.double().log_softmax(dim=-1)[0, code]
                candidates.append((-(score + left * gumbel[0, position]).item(), position, code))
        for _, position, code in sorted(candidates, key=lambda c: c[0])[:size]:
            sequence[:, position] = code
            known.append(position)
    return sequence


@torch.no_grad()
def exact_probabilities(prior, label, context, settings):
    """Probability of each row of `all_sequences` under settings, given one label and context."""
    sequences = all_sequences(prior.grids)
    labels = torch.full((len(sequences),), label)
    if context is not None:
        context = context.expand(len(sequences), *context.shape[1:])
    conditional = prior(sequences, labels, context)
    without = prior(sequences, torch.full_like(labels, prior.num_classes), context)
    result = np.ones(len(sequences))
    for turn, position in enumerate(prediction_order(prior.config.kind, prior.grids)):
        scale, transforms = scale_and_transforms(settings, turn, prior.num_codes)
        grid, place = position_in_grid(prior.grids, position)
        null = without[grid][:, place].double().numpy()
        logits = null + scale * (conditional[grid][:, place].double().numpy() - null)
        for i, row in enumerate(logits):
            result[i] *= transformed_probabilities(row, **transforms)[sequences[i, position]]
    return result
