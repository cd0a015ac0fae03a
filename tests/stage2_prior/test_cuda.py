"""A CUDA device computes and samples what the CPU computes and samples."""

import pytest
import torch
from tiny_priors import as_grids, make_prior, random_labels, random_sequence

from stage2_prior import GridSpec, SamplingSettings

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

GRIDS = (GridSpec(3, 4, 5), GridSpec(3, 4, 4))
KINDS = ("transformer", "pixelcnn")
GUIDED = SamplingSettings(guidance_scale=1.5, temperature=0.9, top_p=0.95, top_k=4)


@pytest.fixture(autouse=True)
def _exact_convolutions(monkeypatch):
    # TensorFloat-32, the default of cuDNN's convolutions, keeps 10 bits of the mantissa.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def samples(prior, settings):
    codes = prior.sample(40, random_labels(3, 40), settings, seed=1, batch_size=16)
    return torch.cat([grid.cpu().flatten(1) for grid in codes], dim=1)


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_on_cuda_equals_the_cpu(kind):
    prior = make_prior(kind, GRIDS, num_classes=3)
    codes = as_grids(random_sequence(GRIDS, 8), GRIDS)
    labels = random_labels(3, 8)
    expected = prior.log_prob(codes, labels)
    found = prior.cuda().log_prob(codes, labels)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("settings", [SamplingSettings(), GUIDED], ids=["plain", "guided"])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_on_cuda_equal_the_cpu(kind, settings):
    # The noise is addressed by (seed, sample, position), so only the logits' last bits differ.
    prior = make_prior(kind, GRIDS, num_classes=3)
    expected = samples(prior, settings)
    same = (samples(prior.cuda(), settings) == expected).all(dim=1)
    assert int(same.sum()) >= 39


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_sampling_on_cuda_follows_the_prior(precision):
    grids = (GridSpec(1, 2, 3),)
    prior = make_prior("transformer", grids, num_classes=3).cuda()
    labels = torch.zeros(4096, dtype=torch.int64)
    settings = SamplingSettings(compile="on", precision=precision)
    first, second = prior.sample(4096, labels, settings, seed=0)[0].cpu().flatten(1).T
    found = torch.bincount(first * 3 + second, minlength=9) / 4096
    every = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    expected = prior.log_prob((every[:, None],), labels[:9]).exp().cpu().float()
    # Four standard errors of a frequency of 1/2.
    torch.testing.assert_close(found, expected, rtol=0, atol=4 * 0.5 / 4096**0.5)
