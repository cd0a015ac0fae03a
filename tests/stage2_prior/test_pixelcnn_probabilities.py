"""Every kind of PixelCNN: probabilities of all grids, and how often they are drawn."""

import numpy as np
import pytest
import torch
from naive_drawing import scale_and_draw_options
from pixelcnn_variants import TINY_VARIANTS, make_pixelcnn, places_in_order
from references import chi_square_deviation, transformed_probabilities
from tiny_priors import all_sequences, as_grids

from stage2_prior import SamplingSettings

NUM_SAMPLES = 10_000
SETTINGS = [
    {},
    {"temperature": 0.7, "top_k": 2},
    {"top_p": 0.9},
    {"guidance_scale": 2.0},
    {"guidance_scale": 3.0, "guidance_schedule": "linear", "first_guidance_scale": 0.5},
    {"first_temperature": 0.5, "temperature": 2.0},
    {"guidance_schedule": "linear", "first_guidance_scale": 0.0},
    {"guidance_scale": 4.0, "guidance_schedule": "cosine", "guidance_power": 2.0},
]


def every_context(variant):
    """Each context there is, as a tuple of grids of one; None where there are no context grids."""
    if not variant.context_grids:
        return [None]
    rows = all_sequences(variant.context_grids)
    return [as_grids(row[None], variant.context_grids) for row in rows]


def repeat(context, count):
    return None if context is None else tuple(grid.expand(count, -1, -1) for grid in context)


def exact_probabilities(prior, label, context, settings):
    """Probability of each row of `all_sequences`, from the logits of one code after another."""
    sequences = all_sequences(prior.grids)
    count, num_places = len(sequences), prior.grids[0].num_codes
    context = repeat(context, count)
    if context is not None:
        context = torch.cat([grid.flatten(1) for grid in context], dim=1)
    labels = torch.full((count,), label)
    with torch.no_grad():
        known = prior(sequences, labels, context)
        nobody = prior(sequences, torch.full_like(labels, prior.null_label), context)
    order, result = places_in_order(prior.grids), np.ones(count)
    for n, (grid, place) in enumerate(order):
        scale, how = scale_and_draw_options(settings, n, len(order))
        without = nobody[grid][:, place].double().numpy()
        logits = without + scale * (known[grid][:, place].double().numpy() - without)
        for i, row in enumerate(logits):
            probabilities = transformed_probabilities(row, **how)
            result[i] *= probabilities[sequences[i, grid * num_places + place]]
    return result


@pytest.mark.parametrize("label", [None, 0, 2])
@pytest.mark.parametrize("variant", TINY_VARIANTS)
def test_probabilities_of_all_grids_sum_to_one(variant, label):
    prior = make_pixelcnn(variant, 3)
    sequences = all_sequences(variant.grids)
    labels = None if label is None else torch.full((len(sequences),), label)
    for context in every_context(variant):
        log_prob = prior.log_prob(
            as_grids(sequences, variant.grids), labels, repeat(context, len(sequences))
        )
        # Four float32 softmaxes, each right to 1e-7 or so.
        assert log_prob.exp().sum().item() == pytest.approx(1, abs=3e-6)


@pytest.mark.parametrize("variant", [v for v in TINY_VARIANTS if "context" in v.id])
def test_probabilities_depend_on_every_code_of_the_context(variant):
    prior = make_pixelcnn(variant)
    codes = as_grids(all_sequences(variant.grids)[:1], variant.grids)
    values = [prior.log_prob(codes, context=c).item() for c in every_context(variant)]
    assert len({round(value, 4) for value in values}) == len(values) == 9


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
@pytest.mark.parametrize("variant", TINY_VARIANTS)
def test_samples_have_the_exact_frequencies(variant, sampling):
    prior, context = make_pixelcnn(variant, 3), every_context(variant)[-1]
    settings = SamplingSettings(**sampling)
    exact = exact_probabilities(prior, 1, context, settings)
    assert exact.sum() == pytest.approx(1, abs=1e-9)
    codes = prior.sample(
        NUM_SAMPLES,
        torch.full((NUM_SAMPLES,), 1),
        settings,
        context=repeat(context, NUM_SAMPLES),
        seed=4,
        batch_size=5_000,
    )
    drawn = torch.cat([grid.flatten(1) for grid in codes], dim=1)
    # `all_sequences` counts like an odometer, here with K = 3 everywhere.
    numbers = drawn @ 3 ** torch.arange(drawn.shape[1]).flip(0)
    counts = np.bincount(numbers.numpy(), minlength=len(exact))
    # Fixed draws: a right sampler fails less than once in 10,000 such tests.
    assert abs(chi_square_deviation(counts, exact)) < 4


def test_frequencies_of_another_context_are_told_apart():
    # Otherwise the test above could not fail.
    (variant,) = [v.values[0] for v in TINY_VARIANTS if v.id == "context"]
    prior, contexts = make_pixelcnn(variant, 3), every_context(variant)
    exact = exact_probabilities(prior, 1, contexts[0], SamplingSettings())
    other = NUM_SAMPLES * exact_probabilities(prior, 1, contexts[-1], SamplingSettings())
    assert chi_square_deviation(other, exact) > 20
