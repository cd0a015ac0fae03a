"""The samplers of both priors against one that evaluates the whole network for every code."""

import pytest
import torch
from tiny_priors import SHAPES, make_prior, network_labels, prediction_order, random_labels

from stage2_prior import SamplingSettings
from stage2_prior.sampling.logits import choose

SETTINGS = {
    "as_it_is": {},
    "likeliest": {"temperature": 0.0},
    "cool": {"temperature": 0.6},
    "top_k": {"top_k": 2},
    "top_p": {"top_p": 0.7},
    "all_three": {"temperature": 1.5, "top_k": 3, "top_p": 0.9},
}
GUIDED = {
    "guided": {"guidance_scale": 2.5},
    "unconditional": {"guidance_scale": 0.0},
    "guided_and_all_three": {"guidance_scale": 1.7, "temperature": 0.8, "top_k": 4, "top_p": 0.95},
}


def draw_naively(kind, prior, labels, settings, uniform):
    """One whole forward pass per code, all later codes being zero."""
    starts = [sum(g.num_codes for g in prior.grids[:i]) for i in range(len(prior.grids))]
    sequence = torch.zeros(uniform.shape, dtype=torch.int64)
    for position in prediction_order(kind, prior.grids):
        grid = max(i for i, start in enumerate(starts) if start <= position)
        logits = prior(sequence, labels)[grid][:, position - starts[grid]]
        if settings.guidance_scale != 1:
            nobody = torch.full_like(labels, prior.num_classes)
            without = prior(sequence, nobody)[grid][:, position - starts[grid]]
            logits = without + settings.guidance_scale * (logits - without)
        sequence[:, position] = choose(
            logits,
            uniform[:, position],
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
        )
    return sequence


@torch.no_grad()
def check_equal_draws(kind, grids, num_classes, settings):
    prior = make_prior(kind, grids, num_classes)
    labels = network_labels(prior, random_labels(num_classes, 20), 20)
    generator = torch.Generator().manual_seed(2)
    uniform = torch.rand(20, prior.num_codes, dtype=torch.float64, generator=generator)
    expected = draw_naively(kind, prior, labels, settings, uniform)
    # Identical, not close: rounding would have to move a number across its threshold.
    assert torch.equal(prior.draw_sequence(labels, settings, uniform), expected)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("kind", "grids"), SHAPES)
def test_draws_without_classes_equal_the_naive_sampler(kind, grids, settings):
    check_equal_draws(kind, grids, None, SamplingSettings(**SETTINGS[settings]))


@pytest.mark.parametrize("settings", [*SETTINGS, *GUIDED])
@pytest.mark.parametrize(("kind", "grids"), SHAPES)
def test_draws_with_labels_equal_the_naive_sampler(kind, grids, settings):
    check_equal_draws(kind, grids, 3, SamplingSettings(**{**SETTINGS, **GUIDED}[settings]))
