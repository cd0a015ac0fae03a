"""Exact probabilities: they sum to one, and follow from the logits of one code after another."""

import math

import numpy as np
import pytest
import torch
from naive_sampling import guided_logits
from references import softmax
from tiny_priors import (
    EVERY_TINY,
    KINDS,
    SOME,
    SQUARE,
    TINY,
    all_sequences,
    as_context,
    as_grids,
    make_prior,
    params,
    prediction_order,
    random_context,
    random_labels,
    random_sequence,
)

from stage2_prior import FeatureSpec, GridSpec
from stage2_prior.objective import PriorObjective

ANY_ORDER = params(TINY, "transformer-any_order", "transformer-any_order_features")


def log_prob_of_all(prior, label, seed=9, **order):
    """Log-probabilities of all sequences, given one label and one random context."""
    sequences, spec = all_sequences(prior.grids), prior.spec.context
    context = random_context(spec, 1, seed)
    if context is not None:
        context = context.expand(len(sequences), *context.shape[1:])
    codes = as_grids(sequences, prior.grids)
    return prior.log_prob(codes, label, as_context(context, spec), **order)


@pytest.mark.parametrize("variant", EVERY_TINY)
def test_probabilities_of_all_grids_sum_to_one(variant):
    for num_classes, label in ((None, None), (3, None), (3, 1)):
        log_prob = log_prob_of_all(variant.make(num_classes), label)
        assert len(log_prob) == math.prod(g.codebook_size**g.num_codes for g in variant.grids)
        # Each conditional is a float32 softmax, right to 1e-7 or so; there are at most six.
        assert log_prob.exp().sum().item() == pytest.approx(1, abs=3e-6)


@pytest.mark.parametrize("variant", ANY_ORDER)
def test_probabilities_sum_to_one_under_any_order(variant):
    for order in ((3, 2, 1, 0), (2, 0, 3, 1), (1, 3, 0, 2)):
        log_prob = log_prob_of_all(variant.make(3), 1, order=torch.tensor(order))
        assert log_prob.exp().sum().item() == pytest.approx(1, abs=3e-6)


@pytest.mark.parametrize("variant", params(TINY, *(name for name in TINY if "features" in name)))
def test_features_change_the_probabilities(variant):
    # Otherwise the sums above would say nothing about them.
    prior = variant.make(3)
    first, second = (log_prob_of_all(prior, 1, seed) for seed in (1, 2))
    assert (first - second).abs().mean() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("variant", SOME)
def test_log_prob_is_the_sum_over_codes_each_given_those_before(variant):
    prior = variant.make(3)
    sequence, labels = random_sequence(variant.grids, 2), random_labels(3, 2)
    context = random_context(variant.context, 2)
    seen, known, expected = torch.zeros_like(sequence), [], np.zeros(2)
    for position in prediction_order(variant.kind, variant.grids):
        logits = guided_logits(prior, seen, labels, context, known, position, 1)
        for i, row in enumerate(logits.double().numpy()):
            expected[i] += math.log(softmax(row)[sequence[i, position]])
        seen[:, position] = sequence[:, position]
        known.append(position)
    codes = as_grids(sequence, variant.grids)
    actual = prior.log_prob(codes, labels, as_context(context, variant.context))
    assert actual.dtype == torch.float64
    # Float32 logits of order 10 over at most 27 codes.
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_raster_order_is_the_order_when_none_is_named():
    prior = TINY["transformer-any_order"].make(3)
    codes = as_grids(random_sequence(prior.grids, 6), prior.grids)
    expected, labels = prior.log_prob(codes, 1), torch.full((6,), 1)
    # One path gathers, the other does not; the sums are the same float32 ones.
    actual = prior.log_prob(codes, labels, order=torch.arange(4))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
    reverse = prior.log_prob(codes, labels, order=torch.tensor([3, 2, 1, 0]))
    assert (reverse - expected).abs().min() > 1e-3


def test_each_image_may_have_its_own_order():
    prior = TINY["transformer-any_order"].make(3)
    codes = as_grids(random_sequence(prior.grids, 3), prior.grids)
    orders = torch.tensor([[2, 0, 3, 1], [0, 1, 2, 3], [3, 1, 0, 2]])
    singly = [
        prior.log_prob(tuple(g[i : i + 1] for g in codes), 1, order=orders[i]) for i in range(3)
    ]
    actual = prior.log_prob(codes, 1, order=orders)
    torch.testing.assert_close(actual, torch.cat(singly), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_does_not_depend_on_the_batch(kind):
    grids = (GridSpec(3, 3, 7),)
    prior = make_prior(kind, grids, 4)
    codes, labels = as_grids(random_sequence(grids, 33), grids), random_labels(4, 33)
    singly = [prior.log_prob((codes[0][i : i + 1],), labels[i : i + 1]) for i in range(33)]
    # Sums of float32 products in another order: a few units in the last place of the logits.
    torch.testing.assert_close(prior.log_prob(codes, labels), torch.cat(singly), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_depends_on_the_label_and_takes_none_for_the_null_label(kind):
    prior = make_prior(kind, SQUARE, 3)
    sequence = random_sequence(SQUARE, 1)
    values = [prior.log_prob(as_grids(sequence, SQUARE), y).item() for y in (0, 1, 2, None)]
    assert len({round(value, 3) for value in values}) == 4
    nll = prior.nll(sequence, torch.tensor([3]))
    assert values[3] == -nll.double().sum().item()


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_is_without_dropout_and_leaves_the_mode(kind):
    prior = make_prior(kind, SQUARE, dropout=0.5)
    sequence, labels = random_sequence(SQUARE, 4), torch.zeros(4, dtype=torch.int64)
    log_probs, logits = [], []
    for training in (False, True):
        log_probs.append(prior.train(training).log_prob(as_grids(sequence, SQUARE)))
        assert {module.training for module in prior.modules()} == {training}
        logits.append(prior(sequence, labels)[0])
    assert torch.equal(*log_probs)
    assert not torch.allclose(*logits, atol=1e-3)  # otherwise the line above could not fail


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_takes_int32_one_label_for_all_and_an_empty_batch(kind):
    prior = make_prior(kind, SQUARE, 3)
    (codes,) = as_grids(random_sequence(SQUARE, 4), SQUARE)
    expected = prior.log_prob((codes,), torch.full((4,), 1))
    assert torch.equal(prior.log_prob((codes.int(),), torch.full((4,), 1).int()), expected)
    assert torch.equal(prior.log_prob((codes,), 1), expected)
    assert prior.log_prob((codes[:0],), torch.zeros(0, dtype=torch.int64)).shape == (0,)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.tensor([0, 3]), ValueError, r"labels .*\[0, 3\), got 0 to 3"),
        (torch.tensor([-1, 0]), ValueError, r"labels .*\[0, 3\), got -1 to 0"),
        (torch.tensor([0]), ValueError, r"labels .*\(2,\), got \(1,\)"),
        (torch.tensor([[0], [1]]), ValueError, r"labels .*\(2,\), got \(2, 1\)"),
        (torch.tensor([0.0, 1.0]), TypeError, "labels .*int64, got torch.float32"),
        (torch.tensor([True, False]), TypeError, "labels .*int64, got torch.bool"),
        (["cat", "dog"], TypeError, "labels .*cat"),
    ],
)
def test_log_prob_refuses_labels_that_do_not_fit(labels, error, message):
    codes = as_grids(random_sequence(SQUARE, 2), SQUARE)
    with pytest.raises(error, match=message):
        make_prior("transformer", SQUARE, 3).log_prob(codes, labels)


@pytest.mark.parametrize(
    ("num_classes", "labels", "options", "message"),
    [
        (None, 0, {}, "trained without labels"),
        (3, None, {"label_dropout": 0.0}, "label_dropout above 0, got 0"),
    ],
)
def test_log_prob_refuses_labels_that_were_never_trained(num_classes, labels, options, message):
    codes = as_grids(random_sequence(SQUARE, 1), SQUARE)
    with pytest.raises(ValueError, match=message):
        make_prior("transformer", SQUARE, num_classes, **options).log_prob(codes, labels)


@pytest.mark.parametrize(
    ("codes", "error", "message"),
    [
        (torch.zeros(1, 2, 2).long(), ValueError, "codes .*1 grids, got Tensor"),
        ((torch.zeros(1, 2, 2).long(),) * 2, ValueError, "codes .*1 grids, got 2"),
        ((torch.zeros(1, 2, 2),), TypeError, "codes .*int64 .*got torch.float32"),
        ((np.zeros((1, 2, 2), int),), TypeError, "codes .*int64 .*got ndarray"),
        ((torch.zeros(1, 2, 3).long(),), ValueError, r"codes .*\(B, 2, 2\), got \(1, 2, 3\)"),
        ((torch.zeros(4).long(),), ValueError, r"codes .*\(B, 2, 2\), got \(4,\)"),
        ((torch.full((1, 2, 2), 3),), ValueError, r"codes .*\[0, 3\), got 3 to 3"),
        ((torch.full((1, 2, 2), -1),), ValueError, r"codes .*\[0, 3\), got -1 to -1"),
    ],
)
def test_log_prob_refuses_codes_that_do_not_fit(codes, error, message):
    with pytest.raises(error, match=message):
        make_prior("transformer", SQUARE).log_prob(codes)


def test_log_prob_refuses_grids_of_unequal_batch():
    grids = (GridSpec(1, 1, 3), GridSpec(1, 1, 3))
    codes = (torch.zeros(2, 1, 1).long(), torch.zeros(3, 1, 1).long())
    with pytest.raises(ValueError, match=r"one batch size, got \[2, 3\]"):
        make_prior("transformer", grids).log_prob(codes)


def test_log_prob_refuses_an_order_that_does_not_fit():
    codes = as_grids(random_sequence(SQUARE, 1), SQUARE)
    with pytest.raises(ValueError, match=r"order .*0 to 3 exactly once"):
        make_prior("transformer", SQUARE, any_order=True).log_prob(
            codes, order=torch.tensor([0, 0, 1, 2])
        )
    for kind in KINDS:
        with pytest.raises(ValueError, match=r"under an order .*any_order"):
            make_prior(kind, SQUARE).log_prob(codes, order=torch.arange(4))


CODES = (GridSpec(2, 1, 4), GridSpec(1, 3, 3))
FEATURES = FeatureSpec(2, 3, 2)


@pytest.mark.parametrize(
    ("spec", "context", "error", "message"),
    [
        (CODES, None, ValueError, "2 context grids, got none"),
        (CODES, (torch.zeros(2, 2, 1).long(),), ValueError, "context .*2 grids, got 1"),
        (CODES, torch.zeros(2, 5).long(), TypeError, "context .*2 code grids, got a tensor"),
        (
            CODES,
            (torch.zeros(3, 2, 1).long(), torch.zeros(3, 1, 3).long()),
            ValueError,
            "context .*2 rows, got 3",
        ),
        (
            CODES,
            (torch.zeros(2, 2, 1), torch.zeros(2, 1, 3).long()),
            TypeError,
            "context .*int64 .*got torch.float32",
        ),
        (
            CODES,
            (torch.full((2, 2, 1), 4), torch.zeros(2, 1, 3).long()),
            ValueError,
            r"context .*\[0, 4\), got 4 to 4",
        ),
        (FEATURES, None, ValueError, r"FeatureSpec\(.*dim=2\), got none"),
        (FEATURES, torch.zeros(2, 6, 2).long(), TypeError, "context .*float .*got torch.int64"),
        (FEATURES, (torch.zeros(2, 6, 2),), TypeError, "context .*float .*got tuple"),
        (FEATURES, torch.zeros(2, 6, 3), ValueError, r"context .*\(2, 6, 2\), got \(2, 6, 3\)"),
        (FEATURES, torch.zeros(2, 2, 3, 2), ValueError, r"context .*\(2, 6, 2\), got \(2, 2, 3"),
        (FEATURES, torch.zeros(1, 6, 2), ValueError, r"context .*\(2, 6, 2\), got \(1, 6, 2\)"),
        ((), (torch.zeros(2, 2, 1).long(),), ValueError, "trained without context"),
        ((), torch.zeros(2, 6, 2), ValueError, "trained without context"),
    ],
)
def test_context_that_does_not_fit_is_refused(spec, context, error, message):
    prior = make_prior("pixelcnn", SQUARE, context=spec)
    with pytest.raises(error, match=message):
        prior.log_prob(as_grids(random_sequence(SQUARE, 2), SQUARE), context=context)
    with pytest.raises(error, match=message):
        prior.sample(2, context=context)


@pytest.mark.parametrize("kind", KINDS)
def test_training_refuses_to_go_without_the_context_or_to_ignore_one(kind):
    sequence = random_sequence(SQUARE, 2)
    for spec in (CODES, FEATURES):
        with pytest.raises(ValueError, match="got none"):
            PriorObjective(make_prior(kind, SQUARE, context=spec))(sequence, None)
        with pytest.raises(ValueError, match="trained without context"):
            PriorObjective(make_prior(kind, SQUARE))(sequence, None, random_context(spec, 2))
