"""Context of a PixelCNN: resized to the grid that is predicted."""

import pytest
import torch
import torch.nn.functional as F

from stage2_prior import FeatureSpec, GridSpec
from stage2_prior.pixelcnn.context import ContextNetwork, _resized


def context_features(height, width, grid, kind):
    """What the two convolutions are given for positions 0, 1, 2, ... embedded as themselves."""
    numbers = torch.arange(height * width)
    spec = FeatureSpec(height, width, 1)
    if kind == "codes":
        spec = (GridSpec(height, width, height * width),)
    network = ContextNetwork(spec, grid, 1, 3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        if kind == "codes":
            network.embeddings[0].weight.copy_(numbers[:, None])
            return network(numbers[None])[0, 0]
        network.project.weight.fill_(1)
        return network(numbers[None, :, None].float())[0, 0]


@pytest.mark.parametrize("kind", ["codes", "features"])
def test_coarser_context_is_repeated_over_the_positions_it_covers(kind):
    actual = context_features(2, 3, GridSpec(4, 6, 2), kind)
    assert actual.tolist() == [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2


@pytest.mark.parametrize("kind", ["codes", "features"])
def test_finer_context_is_averaged_so_that_no_position_is_skipped(kind):
    # 4x6 in cells of 2x2: the mean of a cell is that of its corners.
    actual = context_features(4, 6, GridSpec(2, 3, 2), kind)
    assert actual.tolist() == [[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]]


@pytest.mark.parametrize("shape", [(3, 4), (5, 7), (8, 7), (11, 2)])
def test_resizing_is_adaptive_average_pooling(shape):
    x = torch.randn(2, 3, 5, 7)
    torch.testing.assert_close(_resized(x, shape), F.adaptive_avg_pool2d(x, shape))


def test_every_context_grid_has_an_embedding_of_its_own():
    spec = (GridSpec(3, 3, 4), GridSpec(3, 3, 4))
    network = ContextNetwork(spec, GridSpec(3, 3, 5), 8, 3)
    first, second = torch.arange(9)[None] % 4, torch.arange(9)[None] % 3
    swapped = network(torch.cat([second, first], dim=1))
    assert not torch.allclose(network(torch.cat([first, second], dim=1)), swapped, atol=1e-2)
