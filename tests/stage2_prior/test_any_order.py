"""A prior of any order: exact and causal under every order."""

import itertools
import re

import pytest
import torch
from tiny_priors import (
    all_sequences,
    as_grids,
    make_prior,
    position_of,
    random_labels,
    random_sequence,
)

from stage2_prior import GridSpec

SQUARE = (GridSpec(2, 2, 3),)
PAIR = (GridSpec(1, 2, 3), GridSpec(1, 2, 4))
ORDERS = list(itertools.permutations(range(4)))
CONTEXT = (GridSpec(1, 2, 3),)


def any_order_prior(grids, num_classes=None, **changes):
    return make_prior("transformer", grids, num_classes, any_order=True, **changes)


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("grids", [SQUARE, PAIR], ids=["square", "pair"])
def test_probabilities_of_all_grids_sum_to_one_under_every_order(grids, order):
    prior = any_order_prior(grids, 3)
    codes = as_grids(all_sequences(grids), grids)
    for label in (None, 1):
        labels = None if label is None else torch.full((len(codes[0]),), label)
        total = prior.log_prob(codes, labels, order=torch.tensor(order)).exp().sum().item()
        assert total == pytest.approx(1, abs=1e-5)  # float32 logits


@pytest.mark.parametrize("order", ORDERS[::5], ids=str)
def test_probabilities_sum_to_one_under_an_order_and_a_context(order):
    prior = any_order_prior(SQUARE, context_grids=CONTEXT)
    codes = as_grids(all_sequences(SQUARE), SQUARE)
    context = (torch.tensor([[[2, 0]]]).expand(len(codes[0]), 1, 2),)
    logs = prior.log_prob(codes, context=context, order=torch.tensor(order))
    assert logs.exp().sum().item() == pytest.approx(1, abs=1e-5)  # float32 logits


def code_gradients(prior, sequence, position, order, context=None):
    """How strongly the logits of one position follow each code: float (L,)."""
    outputs = []

    def cut_here(_module, _args, output):
        outputs.append(output.detach().requires_grad_())
        return outputs[-1]

    hooks = [e.register_forward_hook(cut_here) for e in prior.code_embeddings]
    grid, place = position_of(prior.grids, position)
    labels = torch.zeros(1, dtype=torch.int64)
    prior(sequence, labels, context, order)[grid][0, place].square().sum().backward()
    for hook in hooks:
        hook.remove()
    return torch.cat([output.grad.abs().sum(dim=-1)[0] for output in outputs])


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("grids", [SQUARE, PAIR], ids=["square", "pair"])
@pytest.mark.parametrize("context_grids", [(), CONTEXT], ids=["alone", "context"])
def test_each_code_depends_on_all_codes_before_it_in_the_order_and_on_no_other(
    grids, order, context_grids
):
    prior = any_order_prior(grids, context_grids=context_grids)
    sequence = random_sequence(grids, 1)
    context = random_sequence(context_grids, 1) if context_grids else None
    for turn, position in enumerate(order):
        gradients = code_gradients(prior, sequence, position, torch.tensor([order]), context)
        assert set(gradients.nonzero()[:, 0].tolist()) == set(order[:turn])


def test_raster_order_is_the_order_when_none_is_named():
    prior = any_order_prior(PAIR, 3)
    codes, labels = as_grids(random_sequence(PAIR, 6), PAIR), random_labels(3, 6)
    expected = prior.log_prob(codes, labels)
    # One path gathers, the other does not; the sums are the same float32 ones.
    actual = prior.log_prob(codes, labels, order=torch.arange(4))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_another_order_gives_other_probabilities():
    # Otherwise the tests above could not fail.
    prior = any_order_prior(SQUARE)
    codes = as_grids(random_sequence(SQUARE, 6), SQUARE)
    other = prior.log_prob(codes, order=torch.tensor([3, 2, 1, 0]))
    assert (prior.log_prob(codes) - other).abs().min() > 1e-3


def test_each_image_may_have_its_own_order():
    prior = any_order_prior(PAIR, 3)
    codes, labels = as_grids(random_sequence(PAIR, 4), PAIR), random_labels(3, 4)
    orders = torch.tensor(ORDERS[2::6])
    singly = [
        prior.log_prob(tuple(g[i : i + 1] for g in codes), labels[i : i + 1], order=orders[i])
        for i in range(4)
    ]
    actual = prior.log_prob(codes, labels, order=orders)
    torch.testing.assert_close(actual, torch.cat(singly), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["transformer", "pixelcnn"])
def test_prior_of_one_order_refuses_another(kind):
    prior = make_prior(kind, SQUARE)
    codes = as_grids(random_sequence(SQUARE, 1), SQUARE)
    message = (
        "log_prob under an order needs a prior that was trained in any order, this one knows a "
        "single order: train a transformer with any_order (--prior.any-order)"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        prior.log_prob(codes, order=torch.arange(4))


def test_log_prob_refuses_what_is_no_order():
    codes = as_grids(random_sequence(SQUARE, 1), SQUARE)
    with pytest.raises(ValueError, match="order must name every position from 0 to 3 exactly once"):
        any_order_prior(SQUARE).log_prob(codes, order=torch.tensor([0, 0, 1, 2]))


def test_option_adds_the_places_of_the_codes_and_nothing_else():
    plain = make_prior("transformer", PAIR).state_dict().keys()
    names = any_order_prior(PAIR).state_dict().keys()
    assert names - plain == {f"source_place.{part}.weight" for part in ("grid", "row", "column")}
    assert not plain - names
