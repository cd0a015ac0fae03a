"""Orders of prediction, and how many codes are sampled at a time."""

import itertools
import math

import pytest
import torch

from stage2_prior.sampling.ordering import (
    check_order,
    inverse_order,
    known_first,
    random_orders,
    step_sizes,
)


def test_random_orders_are_all_permutations_equally_often():
    orders = [tuple(order) for order in random_orders(6000, 3).tolist()]
    counts = [orders.count(order) for order in itertools.permutations(range(3))]
    assert sum(counts) == 6000
    # Four standard deviations of a binomial count; the seed is fixed.
    assert all(abs(count - 1000) < 4 * math.sqrt(1000 * 5 / 6) for count in counts)


def test_inverse_order_says_when_each_position_has_its_turn():
    assert inverse_order(torch.tensor([[2, 0, 1], [0, 1, 2]])).tolist() == [[1, 2, 0], [0, 1, 2]]


def test_known_positions_come_first_and_both_keep_their_order():
    order = torch.tensor([[4, 0, 3, 1, 2], [0, 1, 2, 3, 4]])
    known = torch.tensor([[True, False, False, True, False], [False, True, False, False, True]])
    assert known_first(order, known).tolist() == [[0, 3, 4, 1, 2], [1, 4, 0, 2, 3]]


def test_order_for_all_images_is_given_to_each():
    assert check_order(torch.tensor([1, 0]), 3, 2).tolist() == [[1, 0]] * 3


@pytest.mark.parametrize(
    ("order", "error", "message"),
    [
        (torch.zeros(3), TypeError, "int64 .*got torch.float32"),
        ([0, 1, 2], TypeError, "int64 .*got list"),
        (torch.tensor([0, 1]), ValueError, r"\(3,\) or \(2, 3\), got \(2,\)"),
        (torch.arange(3).expand(4, 3), ValueError, r"\(3,\) or \(2, 3\), got \(4, 3\)"),
        (torch.tensor([0, 1, 1]), ValueError, "0 to 2 exactly once"),
        (torch.tensor([1, 2, 3]), ValueError, "0 to 2 exactly once"),
        (torch.tensor([[0, 1, 2], [2, 1, 2]]), ValueError, "0 to 2 exactly once"),
    ],
)
def test_what_is_no_order_is_refused(order, error, message):
    with pytest.raises(error, match=f"order .*{message}"):
        check_order(order, 2, 3)


def test_steps_sample_every_code_once():
    steps = (None, 1, 3, 48, 49, 100)
    for num_unknown, num_steps in itertools.product((0, 1, 2, 7, 49), steps):
        sizes = step_sizes(num_unknown, num_steps)
        assert sum(sizes) == num_unknown
        assert all(size >= 1 for size in sizes)
        assert len(sizes) == min(num_unknown, num_steps or num_unknown)


def test_steps_follow_the_cosine():
    # 100 * cos(pi/2 * i/4) = 92.4, 70.7, 38.3, 0 are unknown after steps 1 to 4.
    assert step_sizes(100, 4) == [8, 21, 33, 38]
