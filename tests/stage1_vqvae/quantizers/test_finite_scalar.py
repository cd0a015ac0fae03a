"""Finite scalar quantization against the formulas of its paper, in numpy (float64)."""

import itertools

import numpy as np
import pytest
import torch
from tiny_vqvae import make_quantizer, to_rows

LEVELS = [(8, 8, 8), (5, 4, 3, 2), (2,), (3, 9, 4)]


@pytest.fixture(params=LEVELS, ids=str)
def levels(request):
    return request.param


@pytest.fixture
def quantizer(levels):
    return make_quantizer("finite_scalar", levels=levels)


def half_width_offset_and_shift(levels):
    """Of the bounded range of each dimension (appendix A.1, with the authors' margin)."""
    levels = np.array(levels)
    half, offset = (levels - 1) * (1 + 1e-3) / 2, np.where(levels % 2 == 0, 0.5, 0.0)
    # Two levels have no middle one that z_e = 0 could be shifted to.
    return half, offset, np.where(levels == 2, 0.0, np.arctanh(offset / half))


def bound(rows, levels):
    """Each dimension as a number that rounds to one of its levels."""
    half, offset, shift = half_width_offset_and_shift(levels)
    return np.tanh(rows + shift) * half - offset


def unbound(numbers, levels):
    """Inverts `bound`."""
    half, offset, shift = half_width_offset_and_shift(levels)
    return np.arctanh((numbers + offset) / half) - shift


def as_map(rows):
    """(N, D) numpy points as (1, D, 1, N) float32."""
    return torch.from_numpy(np.asarray(rows).T[None, :, None]).float()


def random_z_e(levels):
    """Points over all levels, none so near a border of two that float32 could decide it."""
    rows = np.random.default_rng(3).normal(size=(4000, len(levels))) * 3
    numbers = bound(rows, levels)
    away = np.abs(numbers - np.floor(numbers) - 0.5).min(axis=1) > 1e-4
    assert away.mean() > 0.9
    return rows[away]


def test_codes_are_those_of_the_formula(quantizer, levels):
    rows = random_z_e(levels)
    digits = np.rint(bound(rows, levels)) + np.array(levels) // 2
    basis = np.cumprod([1, *levels[:-1]])
    (codes,) = quantizer(as_map(rows)).codes
    np.testing.assert_array_equal(codes[0, 0], (digits * basis).sum(axis=1))


def test_z_q_is_that_of_the_formula(quantizer, levels):
    rows = random_z_e(levels)
    expected = np.rint(bound(rows, levels)) / (np.array(levels) // 2)
    # One float32 division.
    np.testing.assert_allclose(to_rows(quantizer(as_map(rows)).z_q), expected, rtol=1e-6)


def test_code_space_is_that_of_the_formula(quantizer, levels):
    rows = random_z_e(levels)
    expected = bound(rows, levels) / (np.array(levels) // 2)
    # float32 tanh near 1, of numbers up to 1.
    np.testing.assert_allclose(to_rows(quantizer.to_code_space(as_map(rows))), expected, atol=1e-5)


def test_gradient_is_that_of_the_bound(quantizer, levels):
    rows = random_z_e(levels)[:50]
    half, _, shift = half_width_offset_and_shift(levels)
    slope = half * (1 - np.tanh(rows + shift) ** 2) / (np.array(levels) // 2)
    z_e = as_map(rows).requires_grad_()
    weights = torch.randn_like(z_e)
    (quantizer(z_e).z_q * weights).sum().backward()
    # 1 - tanh^2 loses digits in float32 where the tanh is near 1.
    expected = slope * to_rows(weights)
    np.testing.assert_allclose(to_rows(z_e.grad), expected, rtol=1e-4, atol=1e-5)


def test_every_level_is_reached_in_order(quantizer, levels):
    sweep = torch.linspace(-20, 20, 20001)[None, None, None].expand(1, len(levels), 1, -1)
    for dim, values in enumerate(to_rows(quantizer(sweep).z_q).T):
        size = levels[dim]
        expected = (np.arange(size) - size // 2) / (size // 2)
        assert (np.diff(values) >= 0).all()
        np.testing.assert_allclose(np.unique(values), expected, rtol=1e-6)


def test_two_levels_meet_at_zero_where_the_gradient_is_half_a_step():
    z_e = torch.tensor([-1e-3, 1e-3]).view(1, 1, 1, 2).requires_grad_()
    output = make_quantizer("finite_scalar", levels=(2,))(z_e)
    output.z_q.sum().backward()
    assert output.codes[0].flatten().tolist() == [0, 1]
    # The slope of tanh(z_e) / 2 at 0, a thousandth more for the margin.
    np.testing.assert_allclose(z_e.grad.flatten(), 0.5, rtol=2e-3)


def test_zero_stays_zero(quantizer, levels):
    z_q = quantizer(torch.zeros(1, len(levels), 1, 1)).z_q
    assert torch.equal(z_q, torch.zeros(1, len(levels), 1, 1))


@pytest.mark.parametrize("size", [1e3, float("inf")])
def test_huge_z_e_take_the_outermost_levels(quantizer, levels, size):
    z_e = torch.full((1, len(levels), 1, 2), size)
    z_e[..., 0] *= -1
    (codes,) = quantizer.encode(z_e)
    assert codes.flatten().tolist() == [0, np.prod(levels) - 1]


def test_code_vectors_are_all_combinations_with_the_first_dimension_fastest(quantizer, levels):
    combinations = [
        digits[::-1] for digits in itertools.product(*(range(size) for size in levels[::-1]))
    ]
    half = np.array(levels) // 2
    expected = (np.array(combinations) - half) / half
    np.testing.assert_allclose(quantizer.code_vectors()[0], expected, rtol=1e-6)


def test_encode_inverts_decode_through_the_bound(quantizer, levels):
    codes = torch.arange(int(np.prod(levels))).view(1, 1, -1)
    numbers = to_rows(quantizer.decode((codes,))) * (np.array(levels) // 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer.encode(as_map(unbound(numbers, levels)))[0], codes)


def test_residual_scale_bounds_what_is_left_over(quantizer, levels):
    rows = random_z_e(levels)
    left_over = np.abs(bound(rows, levels) - np.rint(bound(rows, levels)))
    left_over /= np.array(levels) // 2
    scale = quantizer.residual_scale().numpy()
    assert (left_over <= scale * (1 + 1e-3)).all()
    # ... and tightly: some point comes near it in every dimension.
    assert (left_over.max(axis=0) > 0.9 * scale).all()


def test_default_of_512_codes_has_three_dimensions_of_eight_levels():
    quantizer = make_quantizer("finite_scalar", levels=(8, 8, 8))
    assert quantizer.codebook_sizes == (512,)
    assert quantizer.codebook_dim == 3


def test_even_levels_reach_minus_one_and_odd_levels_both_ends():
    (vectors,) = make_quantizer("finite_scalar", levels=(4, 5)).code_vectors()
    assert vectors.min(dim=0).values.tolist() == [-1.0, -1.0]
    assert vectors.max(dim=0).values.tolist() == [0.5, 1.0]
