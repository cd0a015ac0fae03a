"""The entropy regularisation against sums over all codes, at its bounds, and at the extremes."""

import math

import numpy as np
import pytest
import torch
from tiny_vqvae import make_quantizer, to_rows

from stage1_vqvae.quantizers.entropy import (
    binary_entropy_penalty,
    entropy_penalty,
    squared_distance_logits,
)


def penalty_of(logits):
    """E[H(p)] - H(E[p]) in float64, term by term."""
    logits = np.asarray(logits, dtype=np.float64)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)

    def entropy(q):
        return -sum(x * math.log(x) for x in q if x > 0)

    return np.mean([entropy(row) for row in p]) - entropy(p.mean(axis=0))


def all_code_logits(bit_logits):
    """Logits (N, 2^D) of all codes whose D independent bits have the given log-odds."""
    dims = bit_logits.shape[1]
    bits = (np.arange(2**dims)[:, None] >> np.arange(dims)) & 1  # (2^D, D)
    return np.asarray(bit_logits, dtype=np.float64) @ bits.T


@pytest.mark.parametrize(("shape", "scale"), [((1, 2), 1.0), ((5, 3), 30.0), ((40, 17), 0.1)])
def test_entropy_penalty_equals_a_sum_over_codes(shape, scale):
    logits = torch.randn(shape) * scale
    # Differences of float32 entropies of up to ln 17.
    assert entropy_penalty(logits).item() == pytest.approx(penalty_of(logits), abs=1e-6)


@pytest.mark.parametrize(
    ("shape", "scale"),
    [((1, 1), 1.0), ((9, 1), 30.0), ((30, 5), 1.0), ((20, 8), 0.1), ((20, 8), 30.0)],
)
def test_binary_entropy_penalty_equals_a_sum_over_codes(shape, scale):
    logits = torch.randn(shape) * scale
    expected = penalty_of(all_code_logits(logits))
    # Differences of float32 entropies of up to 8 ln 2.
    assert binary_entropy_penalty(logits).item() == pytest.approx(expected, abs=4e-6)


def test_entropy_penalty_of_equal_points_is_zero():
    # All points choose alike: the choice says nothing about the point.
    assert entropy_penalty(torch.randn(1, 9).expand(5, 9)).item() == pytest.approx(0, abs=1e-6)
    assert binary_entropy_penalty(torch.randn(1, 5).expand(7, 5)).item() == pytest.approx(
        0, abs=1e-6
    )


def test_entropy_penalty_of_equal_logits_is_zero():
    assert entropy_penalty(torch.zeros(5, 9)).item() == pytest.approx(0, abs=1e-6)
    assert binary_entropy_penalty(torch.zeros(5, 9)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("sureness", [50.0, 1e4])
def test_entropy_penalty_of_a_perfect_assignment_is_minus_log_k(sureness):
    assert entropy_penalty(sureness * torch.eye(16)).item() == pytest.approx(-math.log(16))
    bits = ((torch.arange(16)[:, None] >> torch.arange(4)) & 1) * 2.0 - 1
    assert binary_entropy_penalty(sureness * bits).item() == pytest.approx(-4 * math.log(2))


def test_binary_entropy_penalty_of_few_sure_points_is_minus_log_of_their_number():
    # Eight different codes of 2^20.
    logits = 100 * torch.where(torch.rand(8, 20) < 0.5, -1.0, 1.0)
    assert len(logits.unique(dim=0)) == 8
    assert binary_entropy_penalty(logits).item() == pytest.approx(-math.log(8), abs=1e-6)


@pytest.mark.parametrize("scale", [0.1, 3.0, 1000.0])
@pytest.mark.parametrize("penalty", [entropy_penalty, binary_entropy_penalty])
def test_entropy_penalty_stays_within_its_bounds(penalty, scale):
    logits = scale * torch.randn(12, 6)
    least = -6 * math.log(2) if penalty is binary_entropy_penalty else -math.log(6)
    # Rounding of entropies of up to 6 ln 2 in float32.
    assert least - 4e-6 <= penalty(logits).item() <= 4e-6


@pytest.mark.parametrize("penalty", [entropy_penalty, binary_entropy_penalty])
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e30])
def test_entropy_penalty_has_finite_gradients_at_any_scale(penalty, scale):
    # Probabilities round to 0, where x ln x has an infinite slope.
    logits = (torch.randn(6, 9) * scale).requires_grad_()
    value = penalty(logits)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("penalty", [entropy_penalty, binary_entropy_penalty])
def test_entropy_penalty_gradient_equals_differences(penalty):
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(penalty, logits)


@pytest.mark.parametrize("temperature", [0.1, 2.0])
def test_squared_distance_logits_are_distances_up_to_a_constant(temperature):
    z, vectors = torch.randn(11, 3), torch.randn(5, 3)
    squared = ((z.double().numpy()[:, None] - vectors.double().numpy()[None]) ** 2).sum(axis=2)
    difference = squared_distance_logits(z, vectors, temperature).double().numpy()
    difference += squared / temperature
    # float32 products of numbers near one, over the temperature.
    np.testing.assert_allclose(
        difference, difference[:, :1].repeat(5, axis=1), atol=1e-5 / temperature
    )


@pytest.mark.parametrize("cosine", [False, True], ids=["plain", "cosine"])
@pytest.mark.parametrize("kind", ["ema", "gradient", "simvq"])
def test_entropy_term_is_of_softmax_of_squared_distances(kind, cosine):
    options = {"entropy_weight": 0.3, "entropy_temperature": 0.5, "cosine": cosine}
    quantizer = make_quantizer(kind, **options).eval()
    z_e = torch.randn(2, 4, 5, 5)
    z, (vectors,) = to_rows(z_e), (v.detach().double().numpy() for v in quantizer.code_vectors())
    if cosine:
        z /= np.linalg.norm(z, axis=1, keepdims=True)
    squared = ((z[:, None] - vectors[None]) ** 2).sum(axis=2)
    expected = 0.3 * penalty_of(-squared / 0.5)
    assert quantizer(z_e).losses["entropy"].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["ema", "gradient", "simvq"])
def test_entropy_term_is_absent_at_weight_zero(kind):
    assert "entropy" not in make_quantizer(kind)(torch.randn(1, 4, 2, 2)).losses


@pytest.mark.parametrize("kind", ["ema", "gradient", "simvq"])
def test_entropy_term_has_the_gradient_of_the_vectors_that_were_searched(kind):
    # An EMA codebook moves inside forward; the gradient is still of where it was.
    quantizer = make_quantizer(kind, entropy_weight=1.0, entropy_temperature=0.5).train()
    z_e = torch.randn(2, 4, 5, 5, requires_grad=True)
    vectors = quantizer.code_vectors()[0].detach().double()
    quantizer(z_e).losses["entropy"].backward()
    rows = torch.from_numpy(to_rows(z_e)).requires_grad_()
    p = (-torch.cdist(rows, vectors).square() / 0.5).softmax(dim=1)
    mean = p.mean(dim=0)
    (-(p * p.log()).sum(dim=1).mean() + (mean * mean.log()).sum()).backward()
    np.testing.assert_allclose(to_rows(z_e.grad), rows.grad, atol=1e-6)  # float32
