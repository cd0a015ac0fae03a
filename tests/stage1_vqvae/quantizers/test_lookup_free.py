"""Lookup-free quantization, plain and spherical, against its formulas and all 2^D codes."""

import itertools

import numpy as np
import pytest
import torch
from tiny_vqvae import make_quantizer, to_rows

SIZES = [(2, False), (32, False), (64, True)]


@pytest.fixture(params=SIZES, ids=lambda p: f"{p[0]}-{'spherical' if p[1] else 'plain'}")
def case(request):
    return request.param


@pytest.fixture
def quantizer(case):
    size, spherical = case
    return make_quantizer("lookup_free", codebook_size=size, spherical=spherical)


@pytest.fixture
def z_e(quantizer):
    return torch.randn(3, quantizer.codebook_dim, 4, 5)


def corners(case):
    """All codes' vectors (K, D); bit d of the code is the sign of dimension d."""
    size, spherical = case
    dims = size.bit_length() - 1
    bits = np.array([digits[::-1] for digits in itertools.product([0, 1], repeat=dims)])
    return (2.0 * bits - 1) / (np.sqrt(dims) if spherical else 1)


def in_code_space(rows, case):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) if case[1] else rows


def entropy(p):
    p = p[p > 0]
    return -(p * np.log(p)).sum()


def test_code_vectors_are_the_corners_of_the_cube(quantizer, case):
    np.testing.assert_allclose(quantizer.code_vectors()[0], corners(case), rtol=1e-6)


def test_codes_are_the_signs_as_bits(quantizer, z_e):
    positive = to_rows(z_e) >= 0
    expected = (positive * 2 ** np.arange(positive.shape[1])).sum(axis=1)
    np.testing.assert_array_equal(quantizer(z_e).codes[0].flatten(), expected)


def test_sign_of_zero_is_positive(quantizer, case):
    zero = torch.zeros(1, quantizer.codebook_dim, 1, 1)
    assert quantizer.encode(zero)[0].item() == case[0] - 1
    assert quantizer(zero).codes[0].item() == case[0] - 1


def test_commitment_is_the_mean_squared_distance(case, z_e):
    size, spherical = case
    quantizer = make_quantizer(
        "lookup_free", codebook_size=size, spherical=spherical, commitment_weight=0.7
    )
    z = in_code_space(to_rows(z_e), case)
    nearest = np.where(z >= 0, 1, -1) * np.abs(corners(case)).max()
    expected = 0.7 * np.square(z - nearest).mean()
    # float32 means of some hundred numbers.
    assert quantizer(z_e).losses["commitment"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.05, 1.0, 10.0])
def test_entropy_is_that_over_all_codes(case, z_e, temperature):
    size, spherical = case
    quantizer = make_quantizer(
        "lookup_free",
        codebook_size=size,
        spherical=spherical,
        entropy_weight=0.3,
        entropy_temperature=temperature,
    )
    z = in_code_space(to_rows(z_e), case)
    squared = ((z[:, None] - corners(case)[None]) ** 2).sum(axis=2)  # (N, K)
    p = np.exp(-(squared - squared.min(axis=1, keepdims=True)) / temperature)
    p /= p.sum(axis=1, keepdims=True)
    conditional = np.mean([entropy(row) for row in p])
    expected = 0.3 * (conditional - entropy(p.mean(axis=0)))
    # float32 entropies of up to 4 nats, some of which cancel.
    assert quantizer(z_e).losses["entropy"].item() == pytest.approx(expected, abs=3e-6)


def test_entropy_gradient_is_that_over_all_codes(case, z_e):
    size, spherical = case
    quantizer = make_quantizer(
        "lookup_free", codebook_size=size, spherical=spherical, entropy_weight=1.0
    )
    z_e.requires_grad_()
    quantizer(z_e).losses["entropy"].backward()
    rows = torch.from_numpy(to_rows(z_e)).requires_grad_()
    z = rows / rows.norm(dim=1, keepdim=True) if spherical else rows
    squared = (z[:, None] - torch.from_numpy(corners(case))[None]).square().sum(dim=2)
    p = (-squared).softmax(dim=1)
    mean = p.mean(dim=0)
    (-(p * p.log()).sum(dim=1).mean() + (mean * mean.log()).sum()).backward()
    np.testing.assert_allclose(to_rows(z_e.grad), rows.grad, atol=1e-6)  # float32


def test_losses_have_no_term_of_weight_zero(case):
    options = {"codebook_size": case[0], "spherical": case[1]}
    quantizer = make_quantizer("lookup_free", commitment_weight=0.0, entropy_weight=0.0, **options)
    assert quantizer(torch.randn(1, quantizer.codebook_dim, 2, 2)).losses == {}


def test_gradient_of_z_q_is_copied_to_plain_z_e():
    quantizer = make_quantizer("lookup_free", codebook_size=16)
    z_e, weights = torch.randn(2, 4, 3, 5, requires_grad=True), torch.randn(2, 4, 3, 5)
    (quantizer(z_e).z_q * weights).sum().backward()
    assert torch.equal(z_e.grad, weights)


def test_gradient_of_spherical_z_q_passes_the_scaling():
    quantizer = make_quantizer("lookup_free", codebook_size=16, spherical=True)
    z_e, weights = torch.randn(2, 4, 3, 5, requires_grad=True), torch.randn(2, 4, 3, 5)
    (quantizer(z_e).z_q * weights).sum().backward()
    z, w = to_rows(z_e), to_rows(weights)
    length = np.linalg.norm(z, axis=1, keepdims=True)
    expected = (w - z / length**2 * (z * w).sum(axis=1, keepdims=True)) / length
    np.testing.assert_allclose(to_rows(z_e.grad), expected, rtol=1e-4, atol=1e-5)  # float32


def test_spherical_error_is_bounded():
    # The farthest a unit vector can be from its corner: BSQ's bound sqrt(2 - 2 / sqrt(D)).
    quantizer = make_quantizer("lookup_free", codebook_size=64, spherical=True)
    z_e = torch.cat(
        [torch.randn(1, 6, 20, 20), torch.eye(6)[None, :, :, None].expand(1, 6, 6, 20)], 2
    )
    z = to_rows(quantizer.to_code_space(z_e))
    distance = np.linalg.norm(to_rows(quantizer(z_e).z_q) - z, axis=1)
    bound = np.sqrt(2 - 2 / np.sqrt(6))
    assert distance.max() == pytest.approx(bound, rel=1e-6)
