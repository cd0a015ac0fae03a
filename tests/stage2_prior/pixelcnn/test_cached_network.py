"""What cached decoding of a PixelCNN costs: one evaluation of the network per position."""

import pytest
import torch
from tiny_priors import make_prior, random_labels, random_sequence
from torch.utils.flop_counter import FlopCounterMode

from stage2_prior import GridSpec, SamplingSettings


def flops(call):
    """Multiplications and additions of matrix products and convolutions."""
    in_place = {torch.ops.aten.addmm_: lambda _, a, b, **__: 2 * a[0] * a[1] * b[1]}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize(("guidance_scale", "passes"), [(1.0, 1), (2.0, 2)])
@pytest.mark.parametrize("size", [(6, 9), (12, 12)])
def test_sampling_costs_one_evaluation_of_the_network(size, guidance_scale, passes):
    prior, labels = make_prior("pixelcnn", (GridSpec(*size, 5),), 3, kernel_size=5), None
    labels = random_labels(3, 16)
    settings = SamplingSettings(guidance_scale=guidance_scale)
    once = flops(lambda: prior(random_sequence(prior.grids, 16), labels))
    sampled = flops(lambda: prior.sample(16, labels, settings))
    # Nothing reads the last layer's outputs to a next one.
    assert 0.9 * passes * once < sampled <= passes * once
