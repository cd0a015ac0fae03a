"""The naive sampler of the PixelCNN benchmark samples the codes of the cached one."""

import pytest
import torch

from pipelines.benchmarks.pixelcnn import sample_naively
from stage2_prior import GridSpec, PixelCNNConfig, PriorSpec, build_prior
from stage2_prior.grids import to_sequence
from stage2_prior.sampling.noise import addressed_uniform


@torch.no_grad()
@pytest.mark.parametrize("attention_every", [0, 2])
def test_naive_sampler_samples_the_codes_of_the_cached_one(attention_every):
    torch.manual_seed(0)
    config = PixelCNNConfig(
        num_layers=2, width=8, kernel_size=3, attention_every=attention_every, num_heads=2
    )
    spec = PriorSpec(grids=(GridSpec(3, 4, 5), GridSpec(3, 4, 4)), num_classes=3)
    prior = build_prior(config, spec).eval()
    for parameter in prior.parameters():
        parameter.add_(0.4 * torch.randn_like(parameter))
    labels, uniform = torch.arange(16) % 3, addressed_uniform(7, torch.arange(16), 24)
    expected = sample_naively(prior, labels, uniform)
    assert torch.equal(to_sequence(prior.sample(16, labels, seed=7)), expected)
    assert len(expected.unique(dim=0)) == 16
