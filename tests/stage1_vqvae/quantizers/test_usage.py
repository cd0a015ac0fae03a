import math

import numpy as np
import pytest
import torch

from stage1_vqvae.quantizers.usage import code_counts, entropy_bits, perplexity, usage


def test_code_counts_counts_every_code_of_a_grid():
    assert code_counts(torch.tensor([[[0, 3], [3, 1]]]), 5).tolist() == [1, 1, 0, 2, 0]


@pytest.mark.parametrize("size", [2, 7, 512])
def test_perplexity_of_uniform_codes_is_their_number(size):
    # The logarithm of K is rounded once and its exponential once, in float64.
    assert perplexity(torch.full((size,), 13)) == pytest.approx(size, rel=1e-12)


def test_perplexity_of_a_single_code_is_one():
    assert perplexity(torch.tensor([0, 9, 0])) == 1.0


def test_entropy_of_a_single_code_is_a_positive_zero():
    entropy = entropy_bits(torch.tensor([0, 9, 0]))
    assert (entropy, math.copysign(1, entropy)) == (0.0, 1.0)


def test_entropy_of_dyadic_counts_is_their_mean_code_length():
    # Shares 1/2, 1/4, 1/8, 1/8 have codes of 1, 2, 3 and 3 bits.
    assert entropy_bits(torch.tensor([4, 0, 2, 1, 1])) == pytest.approx(1.75, rel=1e-12)


def test_perplexity_is_the_exponential_of_the_entropy():
    counts = np.array([3, 1, 0, 6])
    shares = counts[counts > 0] / counts.sum()
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert perplexity(torch.from_numpy(counts)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("counts", "expected"), [([1, 9, 3], 1.0), ([0, 9, 0, 1], 0.5)])
def test_usage_is_the_fraction_of_codes_that_occur(counts, expected):
    assert usage(torch.tensor(counts)) == expected
