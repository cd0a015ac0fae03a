"""Frechet and kernel distance against closed forms and the definition."""

import numpy as np
import pytest
import torch

from pipelines.evaluation.metrics import frechet
from pipelines.evaluation.metrics.frechet import (
    frechet_distance,
    kernel_distance,
    whole_kernel_distance,
)


def with_moments(mean, scales, count=500, seed=0):
    """Features whose sample mean and covariance are exactly `mean` and diag(scales^2)."""
    x = np.random.default_rng(seed).standard_normal((count, len(mean)))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T)).T)
    return torch.from_numpy(x * np.asarray(scales) + np.asarray(mean))


def test_frechet_distance_is_that_of_gaussians():
    # For diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2.
    first = with_moments([0, 1, 2], [1, 2, 3])
    second = with_moments([3, 1, -2], [2, 2, 0.5], seed=1)
    assert frechet_distance(first, second) == pytest.approx(25 + 1 + 6.25, rel=1e-9)


def test_frechet_distance_of_covariances_that_do_not_commute():
    # For 2x2 matrices tr (S1 S2)^(1/2) = (tr S1 S2 + 2 (det S1 S2)^(1/2))^(1/2).
    x = with_moments([0, 0], [1, 3])
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    first, second = x, x @ turn
    s1, s2 = np.cov(first.numpy().T), np.cov(second.numpy().T)
    root = np.sqrt(np.trace(s1 @ s2) + 2 * np.sqrt(np.linalg.det(s1 @ s2)))
    expected = np.trace(s1) + np.trace(s2) - 2 * root
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_a_set_to_itself_is_zero():
    x = with_moments([5, 1, 2], [1, 2, 3])
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_fewer_images_than_features_is_finite():
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 20)))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-5)


def slow_kernel_distance(x, y):
    """Binkowski et al. 2018, equation 4, term by term."""
    n, m = len(x), len(y)

    def kernel(a, b):
        return (a @ b / len(a) + 1) ** 3

    same = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    same += sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return same - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


def test_kernel_distance_is_the_unbiased_estimate():
    # With no more images than a subset has, every subset is the whole set.
    x, y = with_moments([0, 1], [1, 2], 12).numpy(), with_moments([2, 0], [1, 1], 12, 1).numpy()
    found = kernel_distance(torch.from_numpy(x), torch.from_numpy(y), subsets=2)
    assert found.mean == pytest.approx(slow_kernel_distance(x, y), rel=1e-9)
    assert found.std == pytest.approx(0, abs=1e-9)


def test_kernel_distance_draws_subsets_by_seed_alone():
    x, y = with_moments([0, 1], [1, 2], 40), with_moments([2, 0], [1, 1], 20, 1)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    found = [kernel_distance(x, y, subsets=3, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1]
    assert found[0] != found[2]
    assert found[0].std > 0
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("measure", "shapes"),
    [(frechet_distance, ((1, 3), (9, 3))), (kernel_distance, ((9, 3), (9, 4)))],
)
def test_sets_that_cannot_be_compared_are_refused(measure, shapes):
    first, second = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match="two sets of at least two images each with features of"):
        measure(first, second)


def test_kernel_distance_of_all_pairs_is_the_unbiased_estimate_of_unequal_sets(monkeypatch):
    monkeypatch.setattr(frechet, "_CHUNK", 5)
    x, y = with_moments([0, 1], [1, 2], 12).numpy(), with_moments([2, 0], [1, 1], 7, 1).numpy()
    found = whole_kernel_distance(torch.from_numpy(x), torch.from_numpy(y))
    assert found == pytest.approx(slow_kernel_distance(x, y), rel=1e-9)
