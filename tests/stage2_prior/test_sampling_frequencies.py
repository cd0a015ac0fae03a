"""20,000 samples of tiny priors against the exact probability of every sequence."""

import itertools

import numpy as np
import pytest
import torch
from naive_sampling import exact_probabilities
from references import chi_square_deviation
from tiny_priors import (
    KINDS,
    SQUARE,
    TINY,
    all_sequences,
    as_context,
    as_grids,
    make_prior,
    params,
    random_context,
    sequence_counts,
)

from stage2_prior import SamplingSettings

NUM_SAMPLES = 20_000
# Fixed samples: a right sampler lies further off in fewer than one of 10,000 such tests.
BOUND = 4
SETTINGS = [
    {"temperature": 1.3, "top_k": 2, "top_p": 0.9},
    {"guidance_scale": 2.0},
    {"guidance_scale": 0.0},
    {"guidance_schedule": "linear", "first_guidance_scale": 0.0, "top_p": 0.8},
    {"guidance_scale": 4.0, "guidance_schedule": "cosine", "guidance_power": 2.0},
    {"first_temperature": 0.5, "temperature": 2.0},
]


def counts(prior, label, settings, context=None):
    if context is not None:
        context = context.expand(NUM_SAMPLES, *context.shape[1:])
    codes = prior.sample(
        NUM_SAMPLES,
        label,
        settings,
        context=as_context(context, prior.spec.context),
        seed=4,
        batch_size=5_000,
    )
    return sequence_counts(codes, prior.grids)


def check_frequencies(prior, settings, context=None):
    exact = exact_probabilities(prior, 1, context, settings)
    # Logits of a batch are rounded to float32, in other places for other rows.
    assert exact.sum() == pytest.approx(1, abs=1e-6)
    assert abs(chi_square_deviation(counts(prior, 1, settings, context), exact)) < BOUND


@pytest.mark.parametrize(
    "variant",
    params(
        TINY,
        *("transformer-growing", "transformer-any_order_features"),
        *("pixelcnn-context", "pixelcnn-features", "pixelcnn-equal"),
    ),
)
def test_samples_have_the_exact_frequencies(variant):
    check_frequencies(variant.make(3), SamplingSettings(), random_context(variant.context, 1))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_has_the_exact_frequencies(kind, settings):
    check_frequencies(make_prior(kind, SQUARE, 3), SamplingSettings(**settings))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_classes", [None, 3])
def test_samples_without_a_label_have_the_frequencies_of_log_prob(kind, num_classes):
    prior = make_prior(kind, SQUARE, num_classes)
    exact = prior.log_prob(as_grids(all_sequences(SQUARE), SQUARE)).exp().numpy()
    assert abs(chi_square_deviation(counts(prior, None, None), exact / exact.sum())) < BOUND


@pytest.mark.parametrize("name", ["transformer-features", "pixelcnn-context"])
def test_frequencies_of_another_label_or_context_are_told_apart(name):
    # Otherwise the tests above could not fail.
    prior = TINY[name].make(3)
    first, second = (random_context(prior.spec.context, 1, seed) for seed in (1, 2))
    found = counts(prior, 1, None, first)
    settings = SamplingSettings()
    for label, context in ((2, first), (1, second)):
        exact = exact_probabilities(prior, label, context, settings)
        assert chi_square_deviation(found, exact) > 20


def test_samples_in_bfloat16_have_nearly_the_exact_frequencies():
    # Probabilities that are off by 1 % add 2 to a chi-square of 80, whose deviation is 13.
    prior = make_prior("transformer", SQUARE, 3)
    exact = exact_probabilities(prior, 1, None, SamplingSettings())
    found = counts(prior, 1, SamplingSettings(precision="bfloat16"))
    assert abs(chi_square_deviation(found, exact)) < BOUND


@pytest.mark.parametrize(
    ("known", "order"), [((1, 2), (0, 1, 2, 3)), ((3,), (3, 2, 1, 0)), ((2, 0), (1, 2, 3, 0))]
)
def test_completions_have_the_exact_frequencies_of_the_conditional(known, order):
    prior = make_prior("transformer", SQUARE, 3, any_order=True)
    sequences = all_sequences(SQUARE)
    turns = [p for p in order if p in known] + [p for p in order if p not in known]
    joint = prior.log_prob(as_grids(sequences, SQUARE), 1, order=torch.tensor(turns)).exp()
    given = torch.tensor([2, 1, 0, 2])
    fits = (sequences[:, list(known)] == given[list(known)]).all(dim=1).numpy()
    exact = np.where(fits, joint, 0) / joint.numpy()[fits].sum()
    mask = torch.tensor([p in known for p in range(4)])
    codes = prior.complete(
        as_grids(given.expand(NUM_SAMPLES, 4), SQUARE),
        as_grids(mask.expand(NUM_SAMPLES, 4), SQUARE),
        1,
        order=torch.tensor(order),
        seed=3,
        batch_size=5000,
    )
    assert abs(chi_square_deviation(sequence_counts(codes, SQUARE), exact)) < BOUND


def test_random_steps_one_by_one_have_the_frequencies_of_a_mean_over_orders():
    prior = make_prior("transformer", SQUARE, any_order=True)
    codes = as_grids(all_sequences(SQUARE), SQUARE)
    orders = [torch.tensor(order) for order in itertools.permutations(range(4))]
    exact = torch.stack([prior.log_prob(codes, order=o).exp() for o in orders]).mean(dim=0)
    found = counts(prior, None, SamplingSettings(num_steps=4))
    assert abs(chi_square_deviation(found, (exact / exact.sum()).numpy())) < BOUND
