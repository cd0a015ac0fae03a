"""Each loss against a density written elsewhere, and what its minimum means."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Laplace, Normal

from stage1_vqvae.likelihoods import LIKELIHOODS

pytestmark = pytest.mark.usefixtures("every_device")


@pytest.fixture
def output():
    return torch.randn(2, 3, 4, 5)


@pytest.fixture
def images():
    return torch.rand(2, 3, 4, 5) * 2 - 1


def test_mse_is_a_gaussian_of_variance_one_half(output, images):
    density = Normal(output, math.sqrt(0.5)).log_prob(images).mean()
    constant = math.log(math.pi) / 2
    loss = LIKELIHOODS["mse"].loss(output, images)
    torch.testing.assert_close(loss, -density - constant)


def test_l1_is_a_laplace_of_unit_scale(output, images):
    density = Laplace(output, 1.0).log_prob(images).mean()
    loss = LIKELIHOODS["l1"].loss(output, images)
    torch.testing.assert_close(loss, -density - math.log(2))


def test_bernoulli_of_black_and_white_images_is_their_exact_likelihood(output):
    bits = torch.rand_like(output).round()
    density = Bernoulli(logits=output).log_prob(bits).mean()
    loss = LIKELIHOODS["bernoulli"].loss(output, bits * 2 - 1)
    torch.testing.assert_close(loss, -density)


def test_bernoulli_of_gray_images_is_the_cross_entropy(output, images):
    p = 1 / (1 + np.exp(-output.double().cpu().numpy()))
    t = (images.double().cpu().numpy() + 1) / 2
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    loss = LIKELIHOODS["bernoulli"].loss(output, images)
    assert loss.item() == pytest.approx(expected, rel=1e-5)  # float32


def test_bernoulli_stays_finite_at_extreme_logits():
    loss = LIKELIHOODS["bernoulli"].loss(torch.tensor([200.0]), torch.tensor([-1.0]))
    assert loss.item() == pytest.approx(200.0)  # -log sigmoid(-x) -> x


@pytest.mark.parametrize(
    ("name", "statistic"), [("mse", np.mean), ("l1", np.median), ("bernoulli", np.mean)]
)
def test_loss_of_a_constant_is_least_at(name, statistic):
    likelihood = LIKELIHOODS[name]
    images = torch.tensor([-0.9, -0.7, -0.4, 0.1, 0.8])
    # Every output in turn that shows a level of a fine grid.
    levels = torch.linspace(-0.995, 0.995, 1991)
    outputs = torch.atanh(levels) * 2 if name == "bernoulli" else levels
    losses = torch.stack([likelihood.loss(o.expand(5), images) for o in outputs])
    shown = likelihood.mean(outputs[losses.argmin()])
    expected = statistic(images.cpu().numpy())
    assert shown.item() == pytest.approx(expected, abs=2e-3)  # the grid's step


@pytest.mark.parametrize("name", ["mse", "l1"])
def test_mean_is_the_output_within_the_range_of_images(name):
    mean = LIKELIHOODS[name].mean(torch.tensor([-3.0, -0.5, 0.25, 2.0]))
    assert mean.tolist() == [-1.0, -0.5, 0.25, 1.0]


def test_bernoulli_mean_is_a_hyperbolic_tangent(output):
    torch.testing.assert_close(LIKELIHOODS["bernoulli"].mean(output), torch.tanh(output / 2))
