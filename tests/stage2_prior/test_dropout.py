"""Dropout against the definition: what is dropped, what is scaled, and what a gradient sees."""

import pytest
import torch

from stage2_prior.dropout import Dropout


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_dropout_keeps_the_shape_and_only_zeros_or_scales():
    for shape in ((7,), (3, 5, 11), (64, 49, 32)):
        out = Dropout(0.25)(torch.ones(shape))
        assert out.shape == shape
        # 0.25 is 64 of 256 exactly, so the kept ones are scaled by 256 / 192.
        zero_or_scaled = torch.where(out == 0, out, torch.full(shape, 256 / 192))
        torch.testing.assert_close(out, zero_or_scaled, rtol=1e-6, atol=0)


@pytest.mark.parametrize("probability", [0.05, 0.9])
def test_dropout_drops_the_asked_share(probability):
    out = Dropout(probability)(torch.ones(400_000))
    # Rounding to bytes: at most 1/512; five standard deviations of the sample: at most 0.004.
    assert (out == 0).float().mean().item() == pytest.approx(probability, abs=1 / 512 + 0.004)


def test_dropout_keeps_the_mean():
    assert Dropout(0.1)(torch.ones(1_000_000)).mean().item() == pytest.approx(1, abs=0.002)


def test_dropout_decides_each_byte_of_a_random_number_on_its_own():
    dropped = (Dropout(0.5)(torch.ones(80_000)) == 0).float().view(-1, 8)
    correlations = torch.corrcoef(dropped.T) - torch.eye(8)
    # 10,000 rows: five standard deviations of a correlation of independent columns are 0.05.
    assert correlations.abs().max().item() < 0.05
    assert dropped.mean(dim=0).sub(0.5).abs().max().item() < 0.025


def test_dropout_passes_the_gradient_of_what_it_kept():
    x = torch.ones(1000, requires_grad=True)
    out = Dropout(0.25)(x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient, out.detach(), rtol=0, atol=0)


def test_dropout_does_nothing_in_evaluation():
    x = torch.randn(100)
    assert Dropout(0.5).eval()(x) is x


def test_dropout_keeps_bfloat16():
    assert Dropout(0.5)(torch.ones(10, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_dropout_follows_torchs_seed():
    torch.manual_seed(1)
    first = Dropout(0.5)(torch.ones(100))
    torch.manual_seed(1)
    torch.testing.assert_close(Dropout(0.5)(torch.ones(100)), first, rtol=0, atol=0)
