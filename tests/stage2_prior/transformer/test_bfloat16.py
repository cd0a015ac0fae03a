"""Sampling with bfloat16 matrix products: close to the model, only where it is asked for."""

import numpy as np
import pytest
import torch
from references import chi_square_deviation
from stage2_prior.transformer.sampler import TransformerSampler
from tiny_priors import all_sequences, as_grids, make_prior, random_labels, random_sequence

from stage2_prior import GridSpec, SamplingSettings

SQUARE = (GridSpec(2, 2, 3),)
BFLOAT16 = SamplingSettings(precision="bfloat16")


def test_samples_in_bfloat16_have_nearly_the_exact_frequencies():
    prior, count = make_prior("transformer", SQUARE), 20_000
    exact = prior.log_prob(as_grids(all_sequences(SQUARE), SQUARE)).exp().numpy()
    (drawn,) = prior.sample(count, settings=BFLOAT16, seed=4, batch_size=5000)
    number = (drawn.flatten(1) * torch.tensor([27, 9, 3, 1])).sum(dim=1)
    counts = np.bincount(number.numpy(), minlength=81)
    # Probabilities that are off by 1 % add 2 to a chi-square of 80, whose deviation is 13.
    assert abs(chi_square_deviation(counts, exact / exact.sum())) < 4


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_samples_in_bfloat16_do_not_depend_on_the_batch_size(batch_size):
    prior = make_prior("transformer", (GridSpec(3, 3, 16),), 4)
    labels = random_labels(4, 40)
    (expected,) = prior.sample(40, labels, BFLOAT16, seed=3, batch_size=16)
    (actual,) = prior.sample(40, labels, BFLOAT16, seed=3, batch_size=batch_size)
    assert torch.equal(actual, expected)


@torch.no_grad()
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.1)])
def test_precision_is_that_of_the_networks_output(precision, tolerance):
    # The first position of eight images against the whole network; logits of order 1.
    grids = (GridSpec(1, 1, 9),)
    prior = make_prior("transformer", grids, 8)
    labels = torch.arange(8)
    sampler = TransformerSampler(prior, labels, SamplingSettings(precision=precision))
    zero = torch.zeros(8, 1, dtype=torch.int64)
    inputs = sampler.embed(zero + 1, zero, zero)  # position 1 stands for the start
    hidden = sampler.advance(inputs, 0, sampler.causal_rows(0, 1))
    _, scores = sampler.draw(hidden, zero, 0, torch.full((8, 1), 0.5).double(), scored=True)
    drawn, _ = sampler.draw(hidden, zero, 0, torch.full((8, 1), 0.5).double())
    expected = prior(zero, labels)[0][:, 0].log_softmax(dim=-1).gather(1, drawn)
    error = (scores - expected).abs().max().item()
    assert error < tolerance
    assert (error > 1e-5) == (precision == "bfloat16")  # it is really the lower precision


def test_pixelcnn_refuses_bfloat16():
    prior = make_prior("pixelcnn", SQUARE)
    message = "precision bfloat16 needs a transformer prior, this one is a pixelcnn: keep it at flo"
    with pytest.raises(ValueError, match=message):
        prior.sample(1, settings=BFLOAT16)


def test_log_prob_is_float32_whatever_is_drawn():
    prior = make_prior("transformer", SQUARE)
    codes = as_grids(random_sequence(SQUARE, 4), SQUARE)
    before = prior.log_prob(codes)
    prior.sample(4, settings=BFLOAT16)
    assert torch.equal(prior.log_prob(codes), before)
