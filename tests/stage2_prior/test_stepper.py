"""Steppers: the network's logits one position after another, for a sampler or an entropy coder."""

import copy

import pytest
import torch
from naive_sampling import network_logits
from tiny_priors import (
    EVERY_ANY_ORDER,
    EVERY_VARIANT,
    KINDS,
    SOME,
    VARIANTS,
    as_context,
    as_grids,
    make_prior,
    prediction_order,
    random_context,
    random_labels,
    random_sequence,
)

from stage2_prior import FeatureSpec, GridSpec, SamplingSettings
from stage2_prior.sampling.logits import NO_CODE
from stage2_prior.sampling.stepper import DecodingStart


def inputs(variant, batch, num_classes=3, dtype=torch.float32):
    """Sequence, labels and context of a batch."""
    context = random_context(variant.context, batch)
    if context is not None and context.is_floating_point():
        context = context.to(dtype)
    labels = random_labels(num_classes, batch)
    return random_sequence(variant.grids, batch), labels, context


def decode(stepper, sequence, order):
    """Feeds a stepper with given codes: the logits of each position of the order."""
    logits = []
    with stepper:
        for turn, position in enumerate(order):
            assert stepper.num_known == turn
            logits.append(stepper.logits().clone())
            stepper.accept(sequence[:, position])
    return logits


@torch.no_grad()
@pytest.mark.parametrize(
    ("variant", "dtype", "tolerance"),
    [
        *(pytest.param(*p.values, torch.float64, 1e-10, id=p.id) for p in EVERY_VARIANT),
        *(pytest.param(*p.values, torch.float32, 5e-5, id=f"float32-{p.id}") for p in SOME),
    ],
)
def test_logits_equal_those_of_the_whole_network(variant, dtype, tolerance):
    prior = copy.deepcopy(variant.make(3)).to(dtype)
    sequence, labels, context = inputs(variant, 5, dtype=dtype)
    order = prediction_order(variant.kind, variant.grids)
    found = decode(prior.stepper(labels, context), sequence, order)
    for position, logits in zip(order, found, strict=True):
        assert logits.dtype == dtype
        expected = network_logits(prior, sequence, labels, context, position)
        # Sums of products in another order, of order 10.
        torch.testing.assert_close(logits, expected, rtol=0, atol=tolerance)


@torch.no_grad()
@pytest.mark.parametrize("variant", SOME)
def test_float64_logits_of_one_image_equal_those_in_a_batch(variant):
    prior = copy.deepcopy(variant.make(3)).double()
    sequence, labels, context = inputs(variant, 64, dtype=torch.float64)
    order = prediction_order(variant.kind, variant.grids)
    whole = decode(prior.stepper(labels, context), sequence, order)
    for i in (0, 63):
        row = slice(i, i + 1)
        alone = None if context is None else context[row]
        single = decode(prior.stepper(labels[row], alone), sequence[row], order)
        for ours, expected in zip(single, whole, strict=True):
            torch.testing.assert_close(ours, expected[row], rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("transformer", {"width": 192, "num_heads": 6}),
        ("pixelcnn", {"width": 96, "kernel_size": 5}),
    ],
)
def test_float32_logits_of_a_row_have_the_same_bits_in_every_batch(kind, sizes):
    # At default widths: the tiny networks are too narrow to show how real products round.
    grids = (GridSpec(2, 3, 64),)
    prior = make_prior(kind, grids, 3, **sizes)
    sequence, labels = random_sequence(grids, 66), random_labels(3, 66)
    whole = decode(prior.stepper(labels), sequence, range(6))
    for batch in (1, 2, 7, 16):
        part = decode(prior.stepper(labels[:batch]), sequence[:batch], range(6))
        assert all(torch.equal(a, b[:batch]) for a, b in zip(part, whole, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("variant", SOME)
def test_asking_twice_changes_nothing(variant):
    prior = variant.make(3)
    sequence, labels, context = inputs(variant, 3)
    order = prediction_order(variant.kind, variant.grids)
    expected = decode(prior.stepper(labels, context), sequence, order)
    with prior.stepper(labels, context) as stepper:
        for position, logits in zip(order, expected, strict=True):
            assert torch.equal(stepper.logits(), logits)
            assert torch.equal(stepper.logits(), logits)
            stepper.accept(sequence[:, position])


@torch.no_grad()
@pytest.mark.parametrize("variant", SOME)
def test_log_probabilities_sum_to_log_prob(variant):
    prior = variant.make(3)
    sequence, labels, context = inputs(variant, 4)
    order = prediction_order(variant.kind, variant.grids)
    total = torch.zeros(4, dtype=torch.float64)
    for position, logits in zip(
        order, decode(prior.stepper(labels, context), sequence, order), strict=True
    ):
        log_prob = logits.double().log_softmax(dim=-1)
        total += log_prob.gather(1, sequence[:, position, None])[:, 0]
    codes = as_grids(sequence, variant.grids)
    expected = prior.log_prob(codes, labels, as_context(context, variant.context))
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-4)  # float32 logits


@torch.no_grad()
@pytest.mark.parametrize("variant", EVERY_ANY_ORDER)
@pytest.mark.parametrize("num_known", [0, 3])
def test_logits_in_an_order_of_each_image_after_known_codes(variant, num_known):
    prior = variant.make(3)
    sequence, labels, context = inputs(variant, 3)
    order = torch.tensor(
        [[0, 1, 2, 3, 4, 5, 6, 7], [7, 1, 5, 0, 2, 6, 4, 3], [3, 6, 0, 7, 1, 4, 2, 5]]
    )
    start = DecodingStart(order, sequence.clone(), num_known)
    with prior.stepper(labels, context, start=start) as stepper:
        for turn in range(num_known, 8):
            logits = stepper.logits()
            for i, positions in enumerate(order.tolist()):
                row, position = slice(i, i + 1), positions[turn]
                alone = None if context is None else context[row]
                expected = network_logits(
                    prior, sequence[row], labels[row], alone, position, positions
                )
                size = expected.shape[1]
                torch.testing.assert_close(logits[row, :size], expected, rtol=0, atol=5e-5)
                # Codes of the other grid.
                assert logits.shape[1] == 5
                assert (logits[i, size:] == NO_CODE).all()
            stepper.accept(sequence.gather(1, order[:, turn, None])[:, 0])
        assert stepper.num_known == 8


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_without_guidance_and_temperature(kind):
    variant = VARIANTS[f"{kind}-equal"]
    prior = variant.make(3)
    sequence, labels, _ = inputs(variant, 4)
    settings = SamplingSettings(guidance_scale=3.0, temperature=0.5, top_k=2)
    order = prediction_order(kind, variant.grids)
    expected = decode(prior.stepper(labels), sequence, order)
    actual = decode(prior.stepper(labels, None, settings), sequence, order)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_codes_may_be_accepted_without_asking_for_logits(variant):
    # An encoder knows the first codes, and a decoder resumes after them.
    prior = variant.make(3)
    sequence, labels, context = inputs(variant, 3)
    order = prediction_order(variant.kind, variant.grids)
    expected = decode(prior.stepper(labels, context), sequence, order)
    with prior.stepper(labels, context) as stepper:
        for turn, position in enumerate(order):
            if turn % 3 == 2:
                # Several inputs in one pass sum in another order.
                torch.testing.assert_close(stepper.logits(), expected[turn], rtol=0, atol=5e-5)
            stepper.accept(sequence[:, position])


@pytest.mark.parametrize("kind", KINDS)
def test_stepper_refuses_what_does_not_fit(kind):
    grids, labels = (GridSpec(2, 2, 3),), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="context"):
        make_prior(kind, grids, context=(GridSpec(1, 2, 3),)).stepper(labels)
    start = DecodingStart(torch.arange(4)[None], torch.zeros(1, 4, dtype=torch.int64), num_known=0)
    with pytest.raises(ValueError, match="any_order"):
        make_prior(kind, grids).stepper(labels, start=start)
    if kind == "pixelcnn":
        with pytest.raises(ValueError, match=r"bfloat16 .*pixelcnn"):
            make_prior(kind, grids).stepper(labels, settings=SamplingSettings(precision="bfloat16"))


@pytest.mark.parametrize("kind", KINDS)
def test_features_of_any_float_type_are_a_context(kind):
    prior = make_prior(kind, (GridSpec(2, 2, 3),), context=FeatureSpec(1, 2, 4))
    codes, context = (torch.zeros(3, 2, 2, dtype=torch.int64),), torch.randn(3, 2, 4)
    expected = prior.log_prob(codes, context=context)
    assert torch.equal(prior.log_prob(codes, context=context.double()), expected)
    double = copy.deepcopy(prior).double()
    # Float32 logits of order 10 over four codes.
    found = double.log_prob(codes, context=context)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert double.sample(3, context=context)[0].shape == (3, 2, 2)
