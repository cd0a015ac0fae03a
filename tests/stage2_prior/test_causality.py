"""What each logit depends on: nothing that comes later, and everything earlier within reach."""

import pytest
import torch
from influences import expected_influences, influences
from tiny_priors import (
    EVERY_ANY_ORDER,
    EVERY_VARIANT,
    SOME,
    VARIANTS,
    prediction_order,
    random_context,
    random_sequence,
)


@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_logits_depend_on_exactly_the_codes_before_them_and_the_context(variant):
    prior = variant.make()
    for position in range(prior.num_codes):
        assert influences(prior, position) == expected_influences(prior, position)


@pytest.mark.parametrize("variant", EVERY_ANY_ORDER)
def test_logits_depend_on_exactly_the_codes_before_them_in_any_order(variant):
    prior = variant.make()
    for order in ((7, 6, 5, 4, 3, 2, 1, 0), (3, 0, 6, 1, 7, 2, 5, 4)):
        for position in order:
            expected = expected_influences(prior, position, order)
            assert influences(prior, position, order) == expected


@pytest.mark.parametrize("variant", SOME)
def test_later_codes_get_no_gradient_in_training(variant):
    # Dropout and training mode must not open a way for the future.
    prior = variant.make(dropout=0.5).train()
    order = prediction_order(variant.kind, variant.grids)
    for turn, position in enumerate(order):
        later = {("code", p) for p in order[turn:]}
        assert not influences(prior, position) & later


@pytest.mark.parametrize("variant", SOME)
def test_first_logits_depend_on_the_label(variant):
    # The last of the labels is none, and the first code sees nothing but the label.
    prior = variant.make(3)
    sequence, context = random_sequence(variant.grids, 1), random_context(variant.context, 1)
    rows = [prior(sequence, torch.tensor([label]), context)[0][0, 0] for label in range(4)]
    assert all(not torch.equal(rows[i], rows[j]) for i in range(4) for j in range(i))


def test_context_positions_are_told_apart():
    # The same two codes the other way round are another context.
    for name in ("transformer-any_order_context", "pixelcnn-context"):
        variant = VARIANTS[name]
        prior, sequence = variant.make(), random_sequence(variant.grids, 1)
        context = random_context(variant.context, 1)
        context[0, :2] = torch.tensor([0, 2])
        swapped = torch.cat([context[:, [1, 0]], context[:, 2:]], dim=1)
        labels = torch.zeros(1, dtype=torch.int64)
        losses = [prior.nll(sequence, labels, c).sum().item() for c in (context, swapped)]
        assert abs(losses[0] - losses[1]) > 1e-3
