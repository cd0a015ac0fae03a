"""20,000 samples of tiny priors against the exact probability of every grid there is."""

import numpy as np
import pytest
import torch
from references import chi_square_deviation, transformed_probabilities
from tiny_priors import KINDS, all_sequences, make_prior, network_labels

from stage2_prior import GridSpec, SamplingSettings

NUM_SAMPLES = 20_000
SQUARE = (GridSpec(2, 2, 3),)
PAIR = (GridSpec(1, 2, 3), GridSpec(1, 2, 4))
SETTINGS = [
    {},
    {"temperature": 0.6},
    {"temperature": 1.8},
    {"top_k": 2},
    {"top_p": 0.75},
    {"temperature": 1.3, "top_k": 2, "top_p": 0.9},
]
GUIDED = [{"guidance_scale": 2.0}, {"guidance_scale": 0.0}, {"guidance_scale": 3.0, "top_p": 0.8}]


def exact_probabilities(prior, label, guidance_scale=1.0, **transform):
    """Probability of each row of `all_sequences`, each code's logits being transformed."""
    sequences = all_sequences(prior.grids)
    labels = network_labels(prior, label and torch.full((len(sequences),), label), len(sequences))
    starts = [sum(g.num_codes for g in prior.grids[:i]) for i in range(len(prior.grids))]
    result = np.ones(len(sequences))
    conditional = prior(sequences, labels)
    without = prior(sequences, network_labels(prior, None, len(sequences)))
    for start, known, nobody in zip(starts, conditional, without, strict=True):
        known, nobody = known.detach().double().numpy(), nobody.detach().double().numpy()
        logits = nobody + guidance_scale * (known - nobody)
        for i, t in np.ndindex(logits.shape[:2]):
            probabilities = transformed_probabilities(logits[i, t], **transform)
            result[i] *= probabilities[sequences[i, start + t]]
    return result


def sample_counts(prior, label, settings):
    labels = None if label is None else torch.full((NUM_SAMPLES,), label)
    codes = prior.sample(NUM_SAMPLES, labels, settings, seed=4, batch_size=5_000)
    sequences = torch.cat([grid.flatten(1) for grid in codes], dim=1)
    sizes = [g.codebook_size for g in prior.grids for _ in range(g.num_codes)]
    number = torch.zeros(NUM_SAMPLES, dtype=torch.int64)
    for t, size in enumerate(sizes):  # `all_sequences` counts like an odometer
        number = number * size + sequences[:, t]
    return np.bincount(number.numpy(), minlength=int(np.prod(sizes)))


def check_frequencies(prior, label, **sampling):
    exact = exact_probabilities(prior, label, **sampling)
    assert exact.sum() == pytest.approx(1, abs=1e-9)
    counts = sample_counts(prior, label, SamplingSettings(**sampling))
    # Fixed draws: a right sampler fails less than once in 10,000 such tests.
    assert abs(chi_square_deviation(counts, exact)) < 4


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_exact_frequencies(kind, sampling):
    check_frequencies(make_prior(kind, SQUARE), None, **sampling)


@pytest.mark.parametrize("sampling", [*SETTINGS[:1], *GUIDED], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_labelled_samples_have_the_exact_frequencies(kind, sampling):
    check_frequencies(make_prior(kind, SQUARE, 3), 1, **sampling)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_two_grids_have_the_exact_frequencies(kind):
    check_frequencies(make_prior(kind, PAIR), None)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_without_a_label_have_the_frequencies_of_log_prob(kind):
    prior = make_prior(kind, SQUARE, 3)
    exact = prior.log_prob((all_sequences(SQUARE).view(-1, 2, 2),)).exp().numpy()
    counts = sample_counts(prior, None, None)
    assert abs(chi_square_deviation(counts, exact / exact.sum())) < 4


def test_frequencies_of_another_label_are_told_apart():
    # Otherwise the tests above could not fail.
    prior = make_prior("transformer", SQUARE, 3)
    counts = sample_counts(prior, 1, None)
    assert chi_square_deviation(counts, exact_probabilities(prior, 2)) > 20
