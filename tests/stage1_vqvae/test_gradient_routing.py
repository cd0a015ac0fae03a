"""Which term's gradient reaches which tensor (VQ-VAE paper, equation 3)."""

import numpy as np
import pytest
import torch
from tiny_vqvae import KINDS, make_model, make_quantizer, random_images

from stage1_vqvae.images import to_float

ROUTES = [
    ("ema", "reconstruction", {"encoder", "decoder"}),
    ("ema", "commitment", {"encoder"}),
    ("gradient", "reconstruction", {"encoder", "decoder"}),
    ("gradient", "commitment", {"encoder"}),
    ("gradient", "codebook", {"quantizer"}),
]


@pytest.mark.parametrize(("kind", "term", "reached"), ROUTES)
def test_gradient_of_a_term_reaches_only_its_networks(kind, term, reached):
    model = make_model((1, 8, 8), kind).train()
    images = to_float(random_images(2, 1, 8, 8))
    output = model(images)
    terms = {"reconstruction": model.likelihood.loss(output.output, images)}
    (terms | output.quantized.losses)[term].backward()
    moved = {
        name.partition(".")[0]
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert moved == reached


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_gradient_of_the_reconstruction_reaches_every_parameter_of(part):
    model = make_model((1, 8, 8)).train()
    images = to_float(random_images(2, 1, 8, 8))
    model.likelihood.loss(model(images).output, images).backward()
    module = getattr(model, part)
    assert all(parameter.grad.any() for parameter in module.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_z_q_reaches_z_e_unchanged(kind):
    quantizer = make_quantizer(kind)
    z_e, weights = torch.randn(2, 4, 3, 5, requires_grad=True), torch.randn(2, 4, 3, 5)
    (quantizer(z_e).z_q * weights).sum().backward()
    assert torch.equal(z_e.grad, weights)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_cosine_z_q_reaches_z_e_through_the_scaling(kind):
    quantizer = make_quantizer(kind, cosine=True)
    z_e, weights = torch.randn(2, 4, 3, 5, requires_grad=True), torch.randn(2, 4, 3, 5)
    (quantizer(z_e).z_q * weights).sum().backward()
    z, w = z_e.detach().double().numpy(), weights.double().numpy()
    length = np.linalg.norm(z, axis=1, keepdims=True)
    unit = z / length
    expected = (w - unit * (unit * w).sum(axis=1, keepdims=True)) / length
    np.testing.assert_allclose(z_e.grad, expected, rtol=1e-4, atol=1e-5)  # float32


def test_gradient_of_the_codebook_term_moves_only_chosen_codes():
    quantizer = make_quantizer("gradient", codebook_size=3, codebook_dim=1)
    quantizer.codebook.data = torch.tensor([[0.0], [10.0], [20.0]])
    quantizer(torch.tensor([1.0, 19.0]).view(2, 1, 1, 1)).losses["codebook"].backward()
    # 2 (e - z) / N with N = 2 points.
    assert quantizer.codebook.grad.tolist() == [[-1.0], [0.0], [1.0]]


def test_ema_codebook_is_no_parameter():
    quantizer = make_quantizer("ema")
    assert list(quantizer.parameters()) == []
    assert not quantizer.codebook.requires_grad


def test_ema_codebook_keeps_no_gradient_history_in_training():
    quantizer = make_quantizer("ema", restart_threshold=0.5).train()
    quantizer(torch.randn(2, 4, 3, 5, requires_grad=True))
    assert not any(buffer.requires_grad for buffer in quantizer.buffers())
