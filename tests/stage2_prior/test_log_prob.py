"""Exact probabilities: they sum to one, and follow from the logits of one code after another."""

import math
import re

import numpy as np
import pytest
import torch
from references import softmax
from tiny_priors import (
    KINDS,
    SHAPES,
    all_sequences,
    as_grids,
    make_prior,
    network_labels,
    prediction_order,
    random_labels,
    random_sequence,
)

from stage2_prior import GridSpec

SQUARE = (GridSpec(2, 2, 3),)
SMALL = [
    pytest.param(kind, tuple(GridSpec(*grid) for grid in grids), id=f"{kind}-{name}")
    for kind, name, grids in [
        ("transformer", "2x2", [(2, 2, 3)]),
        ("transformer", "two_1x2", [(1, 2, 3), (1, 2, 4)]),
        ("transformer", "1x1_and_2x2", [(1, 1, 4), (2, 2, 2)]),
        ("pixelcnn", "2x2", [(2, 2, 3)]),
        ("pixelcnn", "two_1x2", [(1, 2, 3), (1, 2, 4)]),
        ("pixelcnn", "three_2x1", [(2, 1, 2), (2, 1, 3), (2, 1, 2)]),
    ]
]


def log_prob_one_by_one(kind, prior, sequence, labels):
    """Sums log p of each code, the network being shown nothing but the codes before it."""
    starts = [sum(g.num_codes for g in prior.grids[:i]) for i in range(len(prior.grids))]
    totals = []
    for row, label in zip(sequence, labels, strict=True):
        known, total = torch.zeros_like(row), 0.0
        for position in prediction_order(kind, prior.grids):
            grid = max(i for i, start in enumerate(starts) if start <= position)
            logits = prior(known[None], label[None])[grid][0, position - starts[grid]]
            probabilities = softmax(logits.detach().numpy().astype(np.float64))
            total += math.log(probabilities[row[position]])
            known[position] = row[position]
        totals.append(total)
    return np.array(totals)


@pytest.mark.parametrize("label", [None, 0, 1, 2])
@pytest.mark.parametrize(("kind", "grids"), SMALL)
def test_probabilities_of_all_grids_sum_to_one(kind, grids, label):
    prior = make_prior(kind, grids, 3)
    sequences = all_sequences(grids)
    assert len(sequences) == math.prod(g.codebook_size**g.num_codes for g in grids)
    labels = None if label is None else torch.full((len(sequences),), label)
    total = prior.log_prob(as_grids(sequences, grids), labels).exp().sum().item()
    # Each conditional is a float32 softmax, right to 1e-7 or so; there are at most six of them.
    assert total == pytest.approx(1, abs=3e-6)


@pytest.mark.parametrize(("kind", "grids"), SMALL)
def test_probabilities_without_classes_sum_to_one(kind, grids):
    prior = make_prior(kind, grids)
    total = prior.log_prob(as_grids(all_sequences(grids), grids)).exp().sum().item()
    assert total == pytest.approx(1, abs=3e-6)


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize(("kind", "grids"), SHAPES)
def test_log_prob_is_the_sum_over_codes_each_given_those_before(kind, grids, num_classes):
    prior = make_prior(kind, grids, num_classes)
    sequence, labels = random_sequence(grids, 2), random_labels(num_classes, 2)
    expected = log_prob_one_by_one(kind, prior, sequence, network_labels(prior, labels, 2))
    actual = prior.log_prob(as_grids(sequence, grids), labels)
    assert actual.dtype == torch.float64
    # Float32 logits of order 10 over at most 20 codes.
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_does_not_depend_on_the_batch(kind):
    grids = (GridSpec(3, 3, 7),)
    prior = make_prior(kind, grids, 4)
    codes, labels = as_grids(random_sequence(grids, 33), grids), random_labels(4, 33)
    singly = [prior.log_prob((codes[0][i : i + 1],), labels[i : i + 1]) for i in range(33)]
    # Sums of float32 products in another order: a few units in the last place of the logits.
    torch.testing.assert_close(prior.log_prob(codes, labels), torch.cat(singly), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_depends_on_the_label(kind):
    prior = make_prior(kind, SQUARE, 3)
    codes = as_grids(random_sequence(SQUARE, 1), SQUARE)
    values = [prior.log_prob(codes, torch.tensor([label])).item() for label in range(3)]
    values.append(prior.log_prob(codes).item())
    assert len({round(value, 3) for value in values}) == 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [False, True])
def test_log_prob_is_without_dropout_and_leaves_the_mode(kind, training):
    prior = make_prior(kind, SQUARE, dropout=0.5)
    codes = as_grids(random_sequence(SQUARE, 4), SQUARE)
    expected = prior.log_prob(codes)
    prior.train(training)
    assert torch.equal(prior.log_prob(codes), expected)
    assert {module.training for module in prior.modules()} == {training}


@pytest.mark.parametrize("kind", KINDS)
def test_forward_in_training_mode_drops_features(kind):
    # Otherwise the test above could not fail.
    prior = make_prior(kind, SQUARE, dropout=0.5)
    sequence, labels = random_sequence(SQUARE, 4), torch.zeros(4, dtype=torch.int64)
    kept = prior(sequence, labels)[0]
    prior.train()
    assert not torch.allclose(prior(sequence, labels)[0], kept, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_int32_codes_and_labels_give_the_log_prob_of_int64_ones(kind):
    prior = make_prior(kind, SQUARE, 3)
    codes, labels = as_grids(random_sequence(SQUARE, 4), SQUARE), random_labels(3, 4)
    assert torch.equal(
        prior.log_prob((codes[0].int(),), labels.int()), prior.log_prob(codes, labels)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_of_an_empty_batch_is_empty(kind):
    prior = make_prior(kind, SQUARE, 3)
    codes = (torch.zeros(0, 2, 2, dtype=torch.int64),)
    assert prior.log_prob(codes, torch.zeros(0, dtype=torch.int64)).shape == (0,)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 3], ValueError, "labels must be in [0, 3), got 0 to 3"),
        ([-1, 0], ValueError, "labels must be in [0, 3), got -1 to 0"),
        ([0], ValueError, "labels must have shape (2,), got (1,)"),
        ([[0], [1]], ValueError, "labels must have shape (2,), got (2, 1)"),
        ([0.0, 1.0], TypeError, "labels must be int64, got torch.float32: convert them"),
        ([True, False], TypeError, "labels must be int64, got torch.bool: convert them"),
    ],
)
def test_log_prob_refuses_labels_that_do_not_fit(labels, error, message):
    prior = make_prior("transformer", SQUARE, 3)
    codes = as_grids(random_sequence(SQUARE, 2), SQUARE)
    with pytest.raises(error, match=re.escape(message)):
        prior.log_prob(codes, torch.tensor(labels))


def test_log_prob_takes_one_label_for_all():
    prior = make_prior("transformer", SQUARE, 3)
    codes = as_grids(random_sequence(SQUARE, 2), SQUARE)
    assert prior.log_prob(codes, 1).equal(prior.log_prob(codes, torch.tensor([1, 1])))


def test_log_prob_refuses_labels_of_a_prior_without_classes():
    prior = make_prior("transformer", SQUARE)
    codes = as_grids(random_sequence(SQUARE, 1), SQUARE)
    with pytest.raises(ValueError, match="trained without labels: leave labels out"):
        prior.log_prob(codes, torch.tensor([0]))


def test_log_prob_refuses_to_go_without_labels_where_that_was_never_trained():
    prior = make_prior("transformer", SQUARE, 3, label_dropout=0.0)
    codes = as_grids(random_sequence(SQUARE, 1), SQUARE)
    with pytest.raises(ValueError, match=r"going without labels .* label_dropout above 0, got 0"):
        prior.log_prob(codes)


@pytest.mark.parametrize(
    ("codes", "error", "message"),
    [
        (torch.zeros(1, 2, 2, dtype=torch.int64), ValueError, "a tuple of 1 grids, got Tensor"),
        ((torch.zeros(1, 2, 2).long(),) * 2, ValueError, "codes must be a tuple of 1 grids, got 2"),
        (
            (torch.zeros(1, 2, 2),),
            TypeError,
            "codes must be int64 tensors, got torch.float32: convert",
        ),
        (
            (np.zeros((1, 2, 2), int),),
            TypeError,
            "codes must be int64 tensors, got ndarray: convert",
        ),
        (
            (torch.zeros(1, 2, 3).long(),),
            ValueError,
            "codes must have shape (B, 2, 2), got (1, 2, 3): they were made from images of another",
        ),
        ((torch.zeros(4).long(),), ValueError, "codes must have shape (B, 2, 2), got (4,)"),
        (
            (torch.full((1, 2, 2), 3),),
            ValueError,
            "codes must be in [0, 3), got 3 to 3: they were made with another codebook",
        ),
        ((torch.full((1, 2, 2), -1),), ValueError, "codes must be in [0, 3), got -1 to -1"),
    ],
)
def test_log_prob_refuses_codes_that_do_not_fit(codes, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make_prior("transformer", SQUARE).log_prob(codes)


def test_log_prob_refuses_grids_of_unequal_batch():
    grids = (GridSpec(1, 1, 3), GridSpec(1, 1, 3))
    codes = (torch.zeros(2, 1, 1).long(), torch.zeros(3, 1, 1).long())
    with pytest.raises(ValueError, match=r"all grids must have one batch size, got \[2, 3\]"):
        make_prior("transformer", grids).log_prob(codes)
