"""Addressed random numbers: as documented, uniform, and independent of their neighbours."""

import numpy as np
import pytest
import torch
from references import splitmix_uniform

from stage2_prior.sampling.noise import AddressedNoise, addressed_uniform

# Standard deviations that a statistic may lie off. The numbers are fixed, so that a test that
# passes always passes; a fair generator fails fewer than one in 10,000 such tests.
BOUND = 4


def noise_of(seed, num_samples, num_positions, first=0):
    samples = torch.arange(first, first + num_samples)
    return addressed_uniform(seed, samples, num_positions).numpy()


@pytest.mark.parametrize(
    ("seed", "first"), [(0, 0), (1, 7), (12345, 2**40), (2**63 - 1, 2**63 - 5)]
)
def test_noise_is_the_documented_function_of_seed_sample_and_position(seed, first):
    expected = [[splitmix_uniform(seed, first + i, t) for t in range(6)] for i in range(4)]
    assert noise_of(seed, 4, 6, first).tolist() == expected


def test_noise_lies_in_zero_to_one_with_53_bits():
    noise = noise_of(3, 500, 500)
    assert noise.dtype == np.float64
    assert noise.min() >= 0
    assert noise.max() < 1
    bits = (noise * 2**53).astype(np.int64)
    assert (bits == noise * 2**53).all()
    # Every bit is set in half of the numbers.
    shares = np.array([((bits >> bit) & 1).mean() for bit in range(53)])
    assert np.abs(shares - 0.5).max() < BOUND * 0.5 / np.sqrt(noise.size)


@pytest.mark.parametrize("shape", [(300, 300), (50_000, 1)], ids=str)
@pytest.mark.parametrize("seed", [0, 2**40])
def test_noise_is_uniform_over_all_and_over_the_samples_of_one_position(seed, shape):
    ordered = np.sort(noise_of(seed, *shape), axis=None)
    steps = np.arange(len(ordered) + 1) / len(ordered)
    distance = max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max())
    # Kolmogorov 1933: beyond 2.2 / sqrt(n) with a probability of 2 exp(-2 * 2.2**2) = 1.2e-4.
    assert distance < 2.2 / np.sqrt(len(ordered))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(noise_of(5, 300, 300), noise_of(5, 300, 300, first=1), id="adjacent_samples"),
        pytest.param(
            noise_of(5, 300, 301)[:, :-1], noise_of(5, 300, 301)[:, 1:], id="adjacent_positions"
        ),
        pytest.param(noise_of(5, 300, 300), noise_of(6, 300, 300), id="adjacent_seeds"),
        pytest.param(noise_of(0, 300, 300), noise_of(2**62, 300, 300), id="distant_seeds"),
        pytest.param(
            noise_of(5, 300, 300)[np.triu_indices(300, 1)],
            noise_of(5, 300, 300).T[np.triu_indices(300, 1)],
            id="sample_and_position_exchanged",
        ),
    ],
)
def test_noise_is_independent_between_addresses(first, second):
    # Dependence of any form: 10 x 10 cells of equal probability, chi-square with 99 degrees.
    counts, _, _ = np.histogram2d(first.ravel(), second.ravel(), bins=10, range=[[0, 1]] * 2)
    expected = first.size / 100
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert abs(statistic - 99) < BOUND * np.sqrt(2 * 99)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < BOUND / np.sqrt(first.size)


def test_noise_of_seed_and_sample_exchanged_differs():
    assert not np.intersect1d(noise_of(3, 1, 50, first=8), noise_of(8, 1, 50, first=3)).size


def test_noise_of_a_sample_is_the_same_among_any_others():
    whole = addressed_uniform(9, torch.arange(20), 6)
    some = torch.tensor([17, 3, 3, 0])
    assert torch.equal(addressed_uniform(9, some, 6), whole[some])


def test_noise_of_a_position_is_the_same_in_any_length():
    samples = torch.arange(4)
    longer, shorter = addressed_uniform(9, samples, 8), addressed_uniform(9, samples, 5)
    assert torch.equal(longer[:, :5], shorter)


def test_noise_blocks_follow_each_other():
    samples = torch.tensor([4, 0, 9])
    noise = AddressedNoise(9, samples, 5)
    whole = addressed_uniform(9, samples, 15)
    assert torch.equal(torch.cat([noise.block(i) for i in range(3)], dim=1), whole)


def test_noise_leaves_the_global_stream_alone():
    state = torch.get_rng_state()
    noise_of(0, 4, 4)
    assert torch.equal(torch.get_rng_state(), state)
