"""Product quantization against a quantizer per group of dimensions."""

from copy import deepcopy

import pytest
import torch
from tiny_vqvae import KINDS, product_config

from stage1_vqvae.quantizers.build import build_quantizer

BASES = [kind for kind in KINDS if kind not in ("residual", "product")]


@pytest.fixture(params=BASES)
def quantizer(request):
    return build_quantizer(product_config(request.param))


@pytest.fixture
def z_e():
    return torch.randn(3, 4, 5, 5)


def test_forward_is_that_of_each_group(quantizer, z_e):
    groups = deepcopy(quantizer.train().groups)
    torch.manual_seed(3)
    outputs = [group(z) for group, z in zip(groups, (z_e[:, :2], z_e[:, 2:]), strict=True)]
    torch.manual_seed(3)
    output = quantizer(z_e)
    assert torch.equal(output.z_q, torch.cat([o.z_q for o in outputs], dim=1))
    assert all(map(torch.equal, output.codes, (o.codes[0] for o in outputs)))
    expected = {
        name: (outputs[0].losses[name].item() + outputs[1].losses[name].item()) / 2
        for name in outputs[0].losses
    }
    assert {n: loss.item() for n, loss in output.losses.items()} == pytest.approx(
        expected, rel=1e-6, abs=1e-9
    )


def test_gradient_of_one_group_does_not_reach_another(quantizer, z_e):
    z_e.requires_grad_()
    quantizer.train()(z_e).z_q[:, :2].sum().backward()
    assert z_e.grad[:, :2].any()
    assert not z_e.grad[:, 2:].any()
    assert not any(p.grad is not None and p.grad.any() for p in quantizer.groups[1].parameters())


def test_mean_commitment_is_over_all_elements(z_e):
    quantizer = build_quantizer(product_config("ema", commitment_weight=0.5)).eval()
    output = quantizer(z_e)
    expected = 0.5 * (z_e - quantizer.decode(output.codes)).double().square().mean()
    assert output.losses["commitment"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_each_group_has_a_codebook_of_its_own():
    first, second = build_quantizer(product_config("ema")).code_vectors()
    assert not torch.equal(first, second)


def test_initialise_fits_each_group_to_its_dimensions():
    quantizer = build_quantizer(product_config("ema", codebook_size=2, kmeans_batches=2))
    low, high = (torch.full((1, 2, 2, 2), value) for value in (-3.0, 5.0))
    # The first two dimensions are at -3 and 5, the others at 50 and 30.
    quantizer.initialise([torch.cat([low, high * 10], 1), torch.cat([high, low * -10], 1)])
    found = [sorted(map(tuple, group.codebook.tolist())) for group in quantizer.groups]
    assert found == [[(-3.0, -3.0), (5.0, 5.0)], [(30.0, 30.0), (50.0, 50.0)]]


def test_cosine_scales_each_group_to_unit_length(z_e):
    quantizer = build_quantizer(product_config("ema", cosine=True))
    lengths = quantizer.to_code_space(z_e).unflatten(1, (2, 2)).norm(dim=2)
    torch.testing.assert_close(lengths, torch.ones(3, 2, 5, 5))


def test_set_progress_reaches_every_group():
    options = {"restart_threshold": 0.5, "restart_until": 0.5}
    quantizer = build_quantizer(product_config("gradient", **options)).train()
    for group in quantizer.groups:
        group.usage_average[0] = 0.0
    before = [v.detach().clone() for v in quantizer.code_vectors()]
    quantizer.set_progress(0.6)
    quantizer(torch.randn(2, 4, 3, 3))
    assert all(map(torch.equal, before, quantizer.code_vectors()))
    quantizer.set_progress(0.4)
    quantizer(torch.randn(2, 4, 3, 3))
    assert not any(map(torch.equal, before, quantizer.code_vectors()))
