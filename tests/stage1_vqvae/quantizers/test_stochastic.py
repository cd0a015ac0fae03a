"""Stochastic quantization (SQ-VAE) against sums over all codes in float64."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_vqvae import make_quantizer, to_rows

# Of chi-square with 6 degrees of freedom: exceeded once in a million.
CHI_SQUARE_LIMIT = 38.3
# Float32 distances as differences of squares, over variances down to a quarter.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(params=[0.25, 6.0], ids=lambda v: f"variance {v}")
def quantizer(request):
    quantizer = make_quantizer("stochastic", kl_weight=0.3, temperature=0.8, final_temperature=0.5)
    with torch.no_grad():
        quantizer.log_variance.fill_(math.log(request.param))
    return quantizer.train()


@pytest.fixture
def z_e():
    return torch.randn(2, 4, 3, 5)


class ReferenceSQVAE:
    """Equations 6 and 9 with every distance written out; `noise` decides the draws."""

    def __init__(self, quantizer, z_e, noise, temperature):
        self.rows = torch.from_numpy(to_rows(z_e)).requires_grad_()
        self.e = quantizer.codebook.detach().double().requires_grad_()
        self.log_variance = quantizer.log_variance.detach().double().requires_grad_()
        squared = (self.rows[:, None] - self.e[None]).square().sum(dim=2)  # (N, K)
        self.logits = -squared / (2 * self.log_variance.exp())
        p = self.logits.softmax(dim=1)
        self.losses = {
            "distance": 0.3 * (p * -self.logits).sum(dim=1).mean(),
            "entropy": 0.3 * (p * p.log()).sum(dim=1).mean(),
        }
        y = ((self.logits + noise) / temperature).softmax(dim=1)
        one_hot = F.one_hot(y.argmax(dim=1), len(self.e)).double()
        self.z_q = one_hot @ self.e + (y - y.detach()) @ self.e.detach()

    def gradients(self):
        return {"rows": self.rows.grad, "e": self.e.grad, "log_variance": self.log_variance.grad}


def forward_and_reference(quantizer, z_e, temperature=0.8):
    torch.manual_seed(3)
    noise = -torch.empty(30, 7).exponential_().log().double()  # the draws that forward makes
    torch.manual_seed(3)
    return quantizer(z_e), ReferenceSQVAE(quantizer, z_e, noise, temperature)


def assert_equal_gradients(quantizer, z_e, reference):
    found = {
        "rows": torch.from_numpy(to_rows(z_e.grad)),
        "e": quantizer.codebook.grad,
        "log_variance": quantizer.log_variance.grad,
    }
    for name, expected in reference.gradients().items():
        np.testing.assert_allclose(found[name], expected, **TOLERANCE, err_msg=name)


def test_logits_are_distances_over_two_variances(quantizer, z_e):
    _, reference = forward_and_reference(quantizer, z_e)
    rows = torch.from_numpy(to_rows(z_e)).float()
    np.testing.assert_allclose(
        quantizer.logits(rows).detach(), reference.logits.detach(), **TOLERANCE
    )


@pytest.mark.parametrize("training", [True, False])
def test_losses_are_those_of_the_evidence_bound(quantizer, z_e, training):
    output, reference = forward_and_reference(quantizer.train(training), z_e)
    found = {name: loss.item() for name, loss in output.losses.items()}
    expected = {name: loss.item() for name, loss in reference.losses.items()}
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("term", ["distance", "entropy"])
def test_gradients_of_a_loss_are_those_of_the_reference(quantizer, z_e, term):
    z_e.requires_grad_()
    output, reference = forward_and_reference(quantizer, z_e)
    output.losses[term].backward()
    reference.losses[term].backward()
    assert_equal_gradients(quantizer, z_e, reference)


@pytest.mark.parametrize(("fraction", "temperature"), [(0.0, 0.8), (1.0, 0.5)])
def test_gradients_of_z_q_are_those_of_the_relaxed_one_hot(quantizer, z_e, fraction, temperature):
    weights = torch.randn_like(z_e)
    z_e.requires_grad_()
    quantizer.set_progress(fraction)
    output, reference = forward_and_reference(quantizer, z_e, temperature)
    (output.z_q * weights).sum().backward()
    (reference.z_q * torch.from_numpy(to_rows(weights))).sum().backward()
    np.testing.assert_allclose(to_rows(output.z_q), reference.z_q.detach(), **TOLERANCE)
    assert_equal_gradients(quantizer, z_e, reference)


def test_training_draws_codes_with_the_softmax_of_distances(quantizer):
    with torch.no_grad():
        quantizer.codebook.mul_(0.3)  # so that every code is expected some hundred times
    point = torch.full((1, 4, 1, 1), 0.1)
    codes = quantizer(point.expand(1, 4, 100, 200)).codes[0].flatten().numpy()
    squared = ((to_rows(point) - quantizer.codebook.detach().double().numpy()) ** 2).sum(axis=1)
    p = np.exp(-squared / (2 * quantizer.log_variance.exp().item()))
    expected = p / p.sum() * len(codes)
    assert expected.min() > 100
    counts = np.bincount(codes, minlength=7)
    assert ((counts - expected) ** 2 / expected).sum() < CHI_SQUARE_LIMIT


def test_evaluation_takes_the_nearest_code(quantizer, z_e):
    vectors = quantizer.codebook.detach().double().numpy()
    expected = ((to_rows(z_e)[:, None] - vectors[None]) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(quantizer.eval()(z_e).codes[0].flatten(), expected)


def test_losses_fall_without_the_decoder_as_the_variance_grows():
    # The divergence terms alone favour large variances: at the limit, all codes alike, -ln K.
    totals = []
    for log_variance in (0.0, 3.0, 30.0):
        quantizer = make_quantizer("stochastic", kl_weight=1.0)
        with torch.no_grad():
            quantizer.codebook.copy_(torch.arange(28.0).view(7, 4) / 10)
            quantizer.log_variance.fill_(log_variance)
        totals.append(sum(quantizer(torch.ones(1, 4, 2, 2)).losses.values()).item())
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] == pytest.approx(-math.log(7), rel=1e-6)


def test_initialise_sets_the_variance_to_the_error_per_dimension():
    quantizer = make_quantizer("stochastic", kmeans_batches=2)
    batches = [torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6)]
    quantizer.initialise(batches)
    rows = np.concatenate([to_rows(z_e) for z_e in batches])
    vectors = quantizer.codebook.detach().double().numpy()
    squared = ((rows[:, None] - vectors[None]) ** 2).sum(axis=2).min(axis=1)
    expected = squared.mean() / 4  # over the four dimensions
    assert quantizer.log_variance.exp().item() == pytest.approx(expected, rel=1e-5)


def test_initialise_puts_codes_on_the_clusters_of_all_its_batches():
    quantizer = make_quantizer("stochastic", codebook_size=3, codebook_dim=1, kmeans_batches=3)
    quantizer.initialise([torch.full((1, 1, 2, 2), place) for place in (-4.0, 1.0, 9.0)])
    assert sorted(quantizer.codebook.flatten().tolist()) == [-4.0, 1.0, 9.0]


def test_initialise_from_points_without_error_stays_finite():
    quantizer = make_quantizer("stochastic", codebook_size=3, codebook_dim=1, kmeans_batches=3)
    batches = [torch.full((1, 1, 2, 2), place) for place in (-4.0, 1.0, 9.0)]
    quantizer.initialise(batches)
    assert quantizer.log_variance.isfinite()
    output = quantizer.train()(torch.cat(batches))
    assert output.z_q.isfinite().all()
    assert all(loss.isfinite() for loss in output.losses.values())


def test_without_kmeans_the_variance_starts_at_one():
    quantizer = make_quantizer("stochastic", kmeans_batches=0)
    quantizer.initialise([torch.randn(2, 4, 3, 3)])
    assert quantizer.log_variance.item() == 0.0
