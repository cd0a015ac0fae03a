"""The naive sampler that the PixelCNN benchmark times draws the same codes as the cached one."""

import pytest
import torch

from pipelines.benchmarks.pixelcnn import draw_naively
from stage2_prior import GridSpec, PixelCNNConfig, SamplingSettings, build_prior


@torch.no_grad()
@pytest.mark.parametrize("attention_every", [0, 2])
def test_naive_sampler_draws_the_codes_of_the_cached_one(attention_every):
    torch.manual_seed(0)
    config = PixelCNNConfig(
        num_layers=2, width=8, kernel_size=3, attention_every=attention_every, num_heads=2
    )
    prior = build_prior(config, (GridSpec(3, 4, 5), GridSpec(3, 4, 4)), 3).eval()
    for parameter in prior.parameters():
        parameter.add_(0.4 * torch.randn_like(parameter))
    labels, uniform = torch.arange(16) % 3, torch.rand(16, 24, dtype=torch.float64)
    expected = draw_naively(prior, labels, uniform)
    assert torch.equal(prior.draw_sequence(labels, SamplingSettings(), uniform), expected)
    assert len(expected.unique(dim=0)) == 16
