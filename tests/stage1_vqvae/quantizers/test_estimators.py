"""The Jacobians that estimators give a choice, against their formulas."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_vqvae import make_quantizer, to_rows
from torch.autograd.functional import jacobian

from stage1_vqvae.quantizers.estimators import (
    index_through,
    rotate_through,
    straight_through,
    with_gradient_of,
)


def test_with_gradient_of_adds_the_gradient_of_the_carrier():
    carrier = torch.tensor([1e8, -3.0])
    value = torch.tensor([1.0, 0.1])
    assert torch.equal(with_gradient_of(value, carrier), value)
    for argument in (0, 1):
        slopes = jacobian(with_gradient_of, (value, carrier))[argument]
        assert torch.equal(slopes, torch.eye(2))


def test_straight_through_has_exactly_the_quantized_value():
    # z_e + (z_q - z_e) would round to 0 here.
    z_e, z_q = torch.tensor([1e8, -3.0]), torch.tensor([1.0, 0.1])
    assert torch.equal(straight_through(z_e, z_q), z_q)


def test_straight_through_has_an_identity_jacobian_to_z_e():
    z_q = torch.randn(4)
    slopes = jacobian(lambda z: straight_through(z, z_q), torch.randn(4))
    assert torch.equal(slopes, torch.eye(4))


def test_straight_through_has_no_gradient_to_z_q():
    z_q = torch.randn(4)
    slopes = jacobian(lambda q: straight_through(torch.ones(4), q), z_q)
    assert torch.equal(slopes, torch.zeros(4, 4))


# --- rotation trick


def rotation_between(e, q):
    """The rotation of the plane of e and q that turns e to q and leaves everything else.

    Written by angle and plane, and not as the product of reflections of the paper: with u the
    direction of e and v that of q made orthogonal to u, R = I + (cos - 1)(u u^T + v v^T)
    + sin (v u^T - u v^T).
    """
    u, q = e / np.linalg.norm(e), q / np.linalg.norm(q)
    cosine = u @ q
    v = q - cosine * u
    sine = np.linalg.norm(v)
    v = v / sine
    plane = np.outer(u, u) + np.outer(v, v)
    turn = np.outer(v, u) - np.outer(u, v)
    return np.eye(len(e)) + (cosine - 1) * plane + sine * turn


def rotation_jacobian(e, q):
    """What autograd finds of `rotate_through` at a single point."""
    return jacobian(lambda z: rotate_through(z[None], q[None])[0], e)


def pair_at(angle, dims, lengths=(2.0, 0.5)):
    """Two float64 vectors with a given angle between them."""
    u, v = np.linalg.qr(np.random.default_rng(dims).normal(size=(dims, 2)))[0].T
    return lengths[0] * u, lengths[1] * (math.cos(angle) * u + math.sin(angle) * v)


@pytest.mark.parametrize("dims", [2, 8])
@pytest.mark.parametrize("angle", [1e-3, 0.3, math.pi / 2, 2.5, math.pi - 0.05])
def test_rotate_through_has_the_jacobian_of_a_scaled_rotation(dims, angle):
    e, q = pair_at(angle, dims)
    R = rotation_between(e, q)
    # The reference is what it says it is.
    np.testing.assert_allclose(R @ R.T, np.eye(dims), atol=1e-12)
    np.testing.assert_allclose(R @ e / 2.0, q / 0.5, atol=1e-12)
    found = rotation_jacobian(torch.from_numpy(e).float(), torch.from_numpy(q).float())
    # float32; near the opposite of e, e + q cancels to a twentieth of its terms.
    np.testing.assert_allclose(found, 0.25 * R, atol=2e-6)


@pytest.mark.parametrize("angle", [math.pi - 1e-3, math.pi - 1e-5, math.pi - 1e-7, math.pi])
def test_rotate_through_of_nearly_opposite_vectors_stays_bounded(angle):
    e, q = pair_at(angle, 8, (1.0, 1.0))
    found = rotation_jacobian(torch.from_numpy(e).float(), torch.from_numpy(q).float())
    # Where e + q is rounding, the plane is arbitrary; I - 2 r r^T + 2 q e^T has norm 3 at most.
    assert torch.linalg.matrix_norm(found, 2) < 3.0 + 1e-5


@pytest.mark.parametrize("dims", [1, 4])
def test_rotate_through_of_exactly_opposite_vectors_is_a_reflection(dims):
    e = torch.zeros(dims)
    e[0] = 3.0
    expected = torch.eye(dims)
    expected[0, 0] = -1.0
    assert torch.equal(rotation_jacobian(e, -e), expected)


def test_rotate_through_of_equal_directions_only_scales():
    e = torch.tensor([3.0, 0.0, -4.0])
    # Products of unit vectors in float32.
    torch.testing.assert_close(rotation_jacobian(e, 2 * e), 2 * torch.eye(3), rtol=0, atol=1e-6)


def test_rotate_through_has_exactly_the_quantized_value():
    z_e, z_q = 1e4 * torch.randn(50, 8), torch.randn(50, 8)
    assert torch.equal(rotate_through(z_e, z_q), z_q)


def test_rotate_through_has_no_gradient_to_z_q():
    z_q = torch.randn(1, 4)
    slopes = jacobian(lambda q: rotate_through(torch.ones(1, 4), q), z_q)
    assert not slopes.any()


def test_rotate_through_of_zero_keeps_its_value_and_bounds_its_gradient():
    z_q = torch.randn(4)
    assert torch.equal(rotate_through(torch.zeros(1, 4), z_q[None]), z_q[None])
    # A reflection, times |z_q| / 1e-6.
    size = torch.linalg.matrix_norm(rotation_jacobian(torch.zeros(4), z_q), 2)
    torch.testing.assert_close(size, 1e6 * z_q.norm())


@pytest.mark.parametrize("kind", ["ema", "gradient", "simvq"])
def test_rotation_trick_keeps_the_angle_between_gradient_and_vector(kind):
    quantizer = make_quantizer(kind, rotation_trick=True).train()
    z_e, weights = torch.randn(2, 4, 3, 5, requires_grad=True), torch.randn(2, 4, 3, 5)
    output = quantizer(z_e)
    (output.z_q * weights).sum().backward()

    def cosines(gradients, vectors):
        gradients, vectors = to_rows(gradients), to_rows(vectors)
        norms = np.linalg.norm(gradients, axis=1) * np.linalg.norm(vectors, axis=1)
        return (gradients * vectors).sum(axis=1) / norms

    # The point of the trick: the gradient makes the angle with z_e that it made with z_q.
    np.testing.assert_allclose(cosines(z_e.grad, z_e), cosines(weights, output.z_q), atol=1e-5)


@pytest.mark.parametrize("kind", ["ema", "gradient", "simvq"])
def test_rotation_trick_changes_nothing_but_the_gradient(kind):
    with_trick, without = (make_quantizer(kind, rotation_trick=on).train() for on in (True, False))
    with_trick.load_state_dict(without.state_dict())
    z_e = torch.randn(2, 4, 3, 5)
    outputs = [quantizer(z_e) for quantizer in (with_trick, without)]
    assert torch.equal(outputs[0].z_q, outputs[1].z_q)
    assert torch.equal(outputs[0].codes[0], outputs[1].codes[0])
    assert outputs[0].losses == outputs[1].losses


# --- index through


def test_index_through_has_exactly_the_chosen_vectors():
    vectors, codes = 1e4 * torch.randn(6, 3), torch.tensor([5, 0, 5, 2])
    probabilities = torch.randn(4, 6).softmax(dim=1)
    assert torch.equal(index_through(codes, probabilities, vectors), vectors[codes])


def test_index_through_has_the_vectors_as_jacobian_to_the_probabilities():
    vectors, codes = torch.randn(6, 3), torch.tensor([5, 0])
    slopes = jacobian(
        lambda p: index_through(codes, p, vectors), torch.randn(2, 6).softmax(dim=1)
    )  # (N, D, N, K)
    expected = torch.zeros(2, 3, 2, 6)
    for point in range(2):
        expected[point, :, point] = vectors.T
    torch.testing.assert_close(slopes, expected)


def test_index_through_has_the_one_hot_as_jacobian_to_the_vectors():
    codes = torch.tensor([5, 0])
    probabilities = torch.randn(2, 6).softmax(dim=1)
    slopes = jacobian(lambda e: index_through(codes, probabilities, e), torch.randn(6, 3))
    one_hot = F.one_hot(codes, 6).float()
    # d z_q[n, d] / d e[k, d'] = [c_n = k][d = d'].
    expected = torch.einsum("nk,de->ndke", one_hot, torch.eye(3))
    assert torch.equal(slopes, expected)
