"""Gumbel-softmax codes: what is drawn, how soft the gradient is, and the divergences."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_vqvae import make_quantizer, to_rows

from stage1_vqvae.quantizers.estimators import annealed_temperature, gumbel_softmax

# Of chi-square with 6 degrees of freedom: exceeded once in a million.
CHI_SQUARE_LIMIT = 38.3


def chi_square(codes, probabilities):
    counts = np.bincount(codes, minlength=len(probabilities))
    expected = len(codes) * np.asarray(probabilities)
    return ((counts - expected) ** 2 / expected).sum()


def softmax(logits):
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def logits_of(quantizer, z_e):
    W, b = (p.detach().double().numpy() for p in quantizer.to_logits.parameters())
    return to_rows(z_e) @ W.T + b


@pytest.fixture
def z_e():
    return torch.randn(2, 4, 3, 5)


@pytest.mark.parametrize("temperature", [0.01, 1.0, 50.0])
def test_largest_entry_is_a_draw_from_the_softmax_at_any_temperature(temperature):
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5, 2.0, -2.0, 0.3])
    codes = gumbel_softmax(logits.expand(20_000, 7), temperature).argmax(dim=1).numpy()
    assert chi_square(codes, softmax(logits.double().numpy())) < CHI_SQUARE_LIMIT


def test_rows_are_distributions():
    rows = gumbel_softmax(torch.randn(50, 7), 0.7)
    assert (rows >= 0).all()
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(50))


def test_low_temperature_gives_one_hot_rows():
    rows = gumbel_softmax(torch.randn(200, 7), 1e-4)
    # Two of seven numbers with noise differ by less than 1e-3 once in a thousand rows or so.
    assert (rows.max(dim=1).values > 0.999).float().mean() > 0.98


def test_high_temperature_gives_equal_rows():
    rows = gumbel_softmax(torch.randn(200, 7), 1e4)
    # Numbers of up to some twenty over the temperature.
    torch.testing.assert_close(rows, torch.full((200, 7), 1 / 7), rtol=1e-2, atol=0)


def test_training_draws_codes_from_the_softmax_of_the_logits():
    quantizer = make_quantizer("gumbel").train()
    point = torch.randn(1, 4, 1, 1)
    (codes,) = quantizer(point.expand(1, 4, 100, 200)).codes
    expected = softmax(logits_of(quantizer, point))[0]
    assert chi_square(codes.flatten().numpy(), expected) < CHI_SQUARE_LIMIT


def test_evaluation_takes_the_likeliest_code(z_e):
    quantizer = make_quantizer("gumbel").eval()
    expected = logits_of(quantizer, z_e).argmax(axis=1)
    np.testing.assert_array_equal(quantizer(z_e).codes[0].flatten(), expected)
    np.testing.assert_array_equal(quantizer.encode(z_e)[0].flatten(), expected)


@pytest.mark.parametrize(("fraction", "temperature"), [(0.0, 4.0), (0.5, 1.0), (1.0, 0.25)])
def test_gradients_are_those_of_the_relaxed_one_hot(z_e, fraction, temperature):
    # Jang et al. 2017, section 2.2: onehot + y - sg[y] with y at the annealed temperature.
    quantizer = make_quantizer("gumbel", temperature=4.0, final_temperature=0.25).train()
    quantizer.set_progress(fraction)
    weights = torch.randn_like(z_e)
    z_e.requires_grad_()
    torch.manual_seed(3)
    noise = -torch.empty(30, 7).exponential_().log().double()  # the draws that forward makes
    torch.manual_seed(3)
    output = quantizer(z_e)
    (output.z_q * weights).sum().backward()

    rows = torch.from_numpy(to_rows(z_e)).requires_grad_()
    W, b, e = (
        p.detach().double().requires_grad_()
        for p in (quantizer.to_logits.weight, quantizer.to_logits.bias, quantizer.codebook)
    )
    y = ((rows @ W.T + b + noise) / temperature).softmax(dim=1)
    one_hot = F.one_hot(y.argmax(dim=1), 7).double()
    z_q = one_hot @ e + (y - y.detach()) @ e.detach()
    (z_q * torch.from_numpy(to_rows(weights))).sum().backward()
    # Softmaxes in float32, over temperatures down to a quarter.
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(to_rows(output.z_q), z_q.detach(), **tolerance)
    np.testing.assert_allclose(to_rows(z_e.grad), rows.grad, **tolerance)
    np.testing.assert_allclose(quantizer.to_logits.weight.grad, W.grad, **tolerance)
    np.testing.assert_allclose(quantizer.to_logits.bias.grad, b.grad, **tolerance)
    np.testing.assert_allclose(quantizer.codebook.grad, e.grad, **tolerance)


@pytest.mark.parametrize("training", [True, False])
def test_losses_are_divergences_from_uniform(z_e, training):
    quantizer = make_quantizer("gumbel", kl_weight=0.3, diversity_weight=0.7).train(training)
    p = softmax(logits_of(quantizer, z_e))
    mean = p.mean(axis=0)
    expected = {
        "kl": 0.3 * (p * np.log(7 * p)).sum(axis=1).mean(),
        "diversity": 0.7 * (mean * np.log(7 * mean)).sum(),
    }
    found = {name: loss.item() for name, loss in quantizer(z_e).losses.items()}
    assert found == pytest.approx(expected, abs=1e-6)  # float32 differences of entropies


@pytest.mark.parametrize(("bias", "expected"), [(0.0, 0.0), (100.0, math.log(7))])
def test_losses_go_from_zero_for_open_to_log_k_for_sure_choices(bias, expected):
    quantizer = make_quantizer("gumbel", kl_weight=1.0, diversity_weight=1.0)
    with torch.no_grad():
        quantizer.to_logits.weight.zero_()
        quantizer.to_logits.bias.zero_()[2] = bias
    losses = quantizer(torch.randn(1, 4, 3, 3)).losses
    assert losses["kl"].item() == pytest.approx(expected, abs=1e-6)
    assert losses["diversity"].item() == pytest.approx(expected, abs=1e-6)


def test_diversity_of_sure_but_varied_choices_is_zero():
    quantizer = make_quantizer(
        "gumbel", codebook_size=4, codebook_dim=4, kl_weight=1.0, diversity_weight=1.0
    )
    with torch.no_grad():
        quantizer.to_logits.weight.copy_(torch.eye(4))
        quantizer.to_logits.bias.zero_()
    losses = quantizer(100 * torch.eye(4)[:, :, None, None]).losses
    assert losses["kl"].item() == pytest.approx(math.log(4), abs=1e-6)
    assert losses["diversity"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.0, 2.0), (0.25, 2 / 50**0.25), (0.5, 0.2828427), (1.0, 0.04)]
)
def test_temperature_falls_geometrically(fraction, expected):
    assert annealed_temperature(2.0, 0.04, fraction) == pytest.approx(expected, rel=1e-6)
