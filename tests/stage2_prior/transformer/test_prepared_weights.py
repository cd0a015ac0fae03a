"""Weights prepared for decoding follow every change of the network."""

import copy

import pytest
import torch
from tiny_priors import make_prior, random_sequence

from stage2_prior import GridSpec

GRIDS = (GridSpec(3, 3, 8),)


def train(prior):
    optimizer = torch.optim.AdamW(prior.parameters(), lr=0.1)
    prior.nll(random_sequence(GRIDS, 4), torch.zeros(4, dtype=torch.int64)).mean().backward()
    optimizer.step()


def load(prior):
    prior.load_state_dict({name: t + 0.5 for name, t in prior.state_dict().items()})


def replace_data(prior):
    for parameter in prior.parameters():
        parameter.data = parameter.data + 0.5


def replace_parameter(prior):
    prior.norm.weight = torch.nn.Parameter(prior.norm.weight.detach() + 0.5)


@pytest.mark.parametrize("change", [train, load, replace_data, replace_parameter])
def test_samples_are_those_of_the_changed_weights(change):
    prior = make_prior("transformer", GRIDS)
    prior.sample(4)
    change(prior)
    fresh = copy.deepcopy(prior)
    fresh._prepared.clear()
    assert torch.equal(prior.sample(64)[0], fresh.sample(64)[0])
    prepared, expected = (p.prepared_weights() for p in (prior, fresh))
    assert torch.equal(prepared.heads[0][0], expected.heads[0][0])


@torch.no_grad()
def test_weights_are_prepared_once_for_each_precision():
    prior = make_prior("transformer", GRIDS)
    first = {name: prior.prepared_weights(name) for name in ("float32", "bfloat16")}
    prior.sample(4)
    for name, weights in first.items():
        assert prior.prepared_weights(name) is weights
        assert weights.blocks[0].to_qkv.dtype == getattr(torch, name)


def test_a_prior_made_in_inference_mode_samples_as_it_is():
    with torch.inference_mode():
        prior = make_prior("transformer", GRIDS)
        before = prior.sample(64)[0]
        prior.heads[0].bias.add_(torch.arange(8.0))
        after = prior.sample(64)[0]
    assert before.double().mean() + 1 < after.double().mean()
