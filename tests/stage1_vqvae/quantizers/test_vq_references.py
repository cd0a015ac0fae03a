"""Both quantizers against the equations of the paper, written down in numpy (float64)."""

import numpy as np
import pytest
import torch
from tiny_vqvae import make_quantizer

STEPS = 20
# Twenty steps in float32: some 1e-6 relative per step.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def batches():
    """z_e around a few moving places, so that the codebook has something to follow."""
    generator = np.random.default_rng(5)
    places = generator.normal(size=(4, 3))
    for step in range(STEPS):
        chosen = generator.integers(0, 4, 40)
        points = places[chosen] + 0.1 * step + 0.3 * generator.normal(size=(40, 3))
        yield points.astype(np.float32)


def as_grid(points):
    """(N, D) points as z_e (2, D, 4, 5), position by position."""
    return torch.from_numpy(points).view(2, 4, 5, 3).permute(0, 3, 1, 2)


def nearest(points, vectors):
    return ((points[:, None] - vectors[None]) ** 2).sum(axis=2).argmin(axis=1)


class ReferenceEMA:
    """Appendix A.1, one code at a time."""

    def __init__(self, codebook, decay, cosine):
        self.e, self.m, self.n = codebook.copy(), codebook.copy(), np.ones(len(codebook))
        self.decay, self.cosine = decay, cosine

    def step(self, points):
        points = unit(points) if self.cosine else points
        vectors = unit(self.e) if self.cosine else self.e
        codes = nearest(points, vectors)
        commitment = ((points - vectors[codes]) ** 2).mean()
        for i in range(len(self.e)):
            chosen = points[codes == i]
            self.n[i] = self.decay * self.n[i] + (1 - self.decay) * len(chosen)  # equation 6
            self.m[i] = self.decay * self.m[i] + (1 - self.decay) * chosen.sum(axis=0)  # 7
            self.e[i] = self.m[i] / self.n[i]  # equation 8
        return codes, commitment


class ReferenceGradient:
    """Equation 3 without the reconstruction, and its gradient by hand."""

    def __init__(self, codebook, rate, cosine):
        self.e, self.rate, self.cosine = codebook.copy(), rate, cosine

    def step(self, points):
        points = unit(points) if self.cosine else points
        lengths = np.linalg.norm(self.e, axis=1, keepdims=True)
        vectors = self.e / lengths if self.cosine else self.e
        codes = nearest(points, vectors)
        distance = ((points - vectors[codes]) ** 2).mean()
        gradient = np.zeros_like(self.e)
        for point, code in zip(points, codes, strict=True):
            gradient[code] += 2 * (vectors[code] - point) / points.size
        if self.cosine:  # through e / |e|: only what is orthogonal to e turns it
            along = (gradient * vectors).sum(axis=1, keepdims=True)
            gradient = (gradient - along * vectors) / lengths
        self.e -= self.rate * gradient
        return codes, distance


@pytest.fixture(params=[False, True], ids=["plain", "cosine"])
def cosine(request):
    return request.param


def ema_pair(cosine):
    options = {"codebook_size": 6, "codebook_dim": 3, "decay": 0.8, "cosine": cosine}
    quantizer = make_quantizer("ema", commitment_weight=0.25, **options).train()
    return quantizer, ReferenceEMA(quantizer.codebook.double().numpy(), 0.8, cosine)


def gradient_pair(cosine):
    options = {"codebook_size": 6, "codebook_dim": 3, "cosine": cosine, "codebook_weight": 2.0}
    quantizer = make_quantizer("gradient", commitment_weight=0.25, **options).train()
    # The codebook term's weight of 2 scales the reference's rate.
    reference = ReferenceGradient(quantizer.codebook.detach().double().numpy(), 2 * 0.7, cosine)
    return quantizer, reference, torch.optim.SGD([quantizer.codebook], lr=0.7)


def test_ema_codes_are_those_of_the_reference(cosine):
    quantizer, reference = ema_pair(cosine)
    for points in batches():
        expected, _ = reference.step(points)
        np.testing.assert_array_equal(quantizer(as_grid(points)).codes[0].flatten(), expected)


def test_ema_statistics_after_twenty_steps_are_those_of_the_reference(cosine):
    quantizer, reference = ema_pair(cosine)
    for points in batches():
        quantizer(as_grid(points))
        reference.step(points)
    np.testing.assert_allclose(quantizer.usage_average, reference.n, **TOLERANCE)
    np.testing.assert_allclose(quantizer.usage_sum, reference.m, **TOLERANCE)
    np.testing.assert_allclose(quantizer.codebook, reference.e, **TOLERANCE)


def test_ema_loss_is_the_weighted_commitment(cosine):
    quantizer, reference = ema_pair(cosine)
    for points in batches():
        losses = quantizer(as_grid(points)).losses
        _, distance = reference.step(points)
        assert {name: loss.item() for name, loss in losses.items()} == {
            "commitment": pytest.approx(0.25 * distance, rel=1e-4)
        }


def test_gradient_losses_are_those_of_equation_3(cosine):
    quantizer, reference, optimizer = gradient_pair(cosine)
    for points in batches():
        losses = quantizer(as_grid(points)).losses
        _, distance = reference.step(points)
        assert {name: loss.item() for name, loss in losses.items()} == {
            "codebook": pytest.approx(2.0 * distance, rel=1e-4),
            "commitment": pytest.approx(0.25 * distance, rel=1e-4),
        }
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()


def test_gradient_codebook_after_twenty_steps_is_that_of_the_reference(cosine):
    quantizer, reference, optimizer = gradient_pair(cosine)
    for points in batches():
        optimizer.zero_grad()
        torch.stack(list(quantizer(as_grid(points)).losses.values())).sum().backward()
        optimizer.step()
        reference.step(points)
    np.testing.assert_allclose(quantizer.codebook.detach(), reference.e, **TOLERANCE)


def test_gradient_usage_follows_equation_6():
    quantizer = make_quantizer("gradient", codebook_size=6, codebook_dim=3, decay=0.8).train()
    expected = np.ones(6)
    for points in batches():
        codes = quantizer(as_grid(points)).codes[0].flatten().numpy()
        expected = 0.8 * expected + 0.2 * np.array([(codes == i).sum() for i in range(6)])
    np.testing.assert_allclose(quantizer.usage_average, expected, **TOLERANCE)


def test_commitment_gradient_is_that_of_the_squared_distance():
    quantizer = make_quantizer("ema", codebook_size=6, codebook_dim=3, commitment_weight=0.5).eval()
    points = next(batches())
    z_e = as_grid(points).clone().requires_grad_()
    quantizer(z_e).losses["commitment"].backward()
    vectors = quantizer.codebook.double().numpy()
    expected = 0.5 * 2 * (points - vectors[nearest(points, vectors)]) / points.size
    np.testing.assert_allclose(
        z_e.grad.permute(0, 2, 3, 1).reshape(-1, 3), expected, rtol=1e-4, atol=1e-7
    )
