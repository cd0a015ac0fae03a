"""Decoding with bfloat16 matrix products: close to the model, only where it is asked for."""

import copy

import torch
from tiny_priors import SQUARE, as_grids, make_prior, random_sequence

from stage2_prior import GridSpec, SamplingSettings

BFLOAT16 = SamplingSettings(precision="bfloat16")


@torch.no_grad()
def test_precision_is_that_of_the_products():
    grids = (GridSpec(1, 1, 9),)
    prior, labels = make_prior("transformer", grids, 8), torch.arange(8)
    expected = prior(torch.zeros(8, 1, dtype=torch.int64), labels)[0][:, 0].log_softmax(dim=-1)
    for precision, least, most in (("float32", 0, 1e-5), ("bfloat16", 1e-5, 0.1)):
        settings = SamplingSettings(precision=precision)
        with prior.stepper(labels, None, settings) as stepper:
            logits = stepper.logits()
        assert logits.dtype == torch.float32
        error = (logits.log_softmax(dim=-1) - expected).abs().max().item()  # of order 1
        assert least <= error < most


def test_weights_and_log_prob_are_float32_whatever_is_sampled():
    prior = make_prior("transformer", SQUARE)
    codes = as_grids(random_sequence(SQUARE, 4), SQUARE)
    before, fresh = prior.log_prob(codes), copy.deepcopy(prior).sample(4)
    prior.sample(4, settings=BFLOAT16)
    assert torch.equal(prior.log_prob(codes), before)
    assert torch.equal(prior.sample(4)[0], fresh[0])
