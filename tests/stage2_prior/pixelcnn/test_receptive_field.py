"""How far a PixelCNN looks: half a kernel per layer, and everywhere with attention."""

import pytest
from influences import expected_influences, influences
from tiny_priors import ATTENTION, make_prior

from stage2_prior import FeatureSpec, GridSpec

WIDE = (GridSpec(5, 7, 3),)
CORNERS_AND_MIDDLE = [i * 7 + j for i, j in [(0, 0), (0, 6), (2, 3), (4, 0), (4, 6)]]


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 1},
        {"num_layers": 2},
        {"num_layers": 2, "kernel_size": 5},
        {"num_layers": 1, **ATTENTION},
        {"num_layers": 3, "attention_every": 2, "num_heads": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "context",
    [
        (),
        WIDE,
        (GridSpec(10, 14, 3), GridSpec(1, 1, 3)),
        FeatureSpec(2, 3, 4),
    ],
    ids=["alone", "equal", "finer_and_single", "coarser_features"],
)
def test_receptive_field_is_exact(options, context):
    prior = make_prior("pixelcnn", WIDE, context=context, **options)
    for position in CORNERS_AND_MIDDLE:
        assert influences(prior, position) == expected_influences(prior, position)


@pytest.mark.parametrize(
    ("kernel_size", "num_layers", "reach"), [(3, 1, 1), (3, 4, 4), (5, 1, 2), (5, 2, 4)]
)
def test_reach_is_half_a_kernel_per_layer(kernel_size, num_layers, reach):
    # A closed form, unlike the wiring above: earlier in raster order, and near.
    prior = make_prior("pixelcnn", WIDE, kernel_size=kernel_size, num_layers=num_layers)
    for position in CORNERS_AND_MIDDLE:
        row, column = divmod(position, 7)
        assert influences(prior, position) == {
            ("code", i * 7 + j)
            for i in range(5)
            for j in range(7)
            if i >= row - reach and abs(j - column) <= reach and (i, j) < (row, column)
        }


def test_one_attention_block_brings_every_earlier_code_within_reach():
    # Where three layers of convolutions alone see a corner of the grid.
    grids = (GridSpec(9, 9, 3),)
    near = influences(make_prior("pixelcnn", grids), 80)
    assert len(near) < 30
    everything = influences(make_prior("pixelcnn", grids, **ATTENTION), 80)
    assert everything == {("code", position) for position in range(80)}
