"""What a prior is a distribution over: ranges, numbers of labels, sequences of grids."""

import pytest
import torch

from stage2_prior import FeatureSpec, GridSpec, PriorSpec
from stage2_prior.grids import raster_positions, to_grids, to_sequence

GRIDS = (GridSpec(1, 2, 9), GridSpec(2, 3, 9))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GridSpec(0, 1, 1), "at least 1, got GridSpec"),
        (lambda: GridSpec(1, 0, 1), "at least 1, got GridSpec"),
        (lambda: GridSpec(1, 1, 0), "at least 1, got GridSpec"),
        (lambda: GridSpec(1, 1, 2**24 + 1), "codebook_size .*16,777,216, got GridSpec"),
        (lambda: FeatureSpec(0, 1, 1), "at least 1, got FeatureSpec"),
        (lambda: FeatureSpec(1, 0, 1), "at least 1, got FeatureSpec"),
        (lambda: FeatureSpec(1, 1, 0), "at least 1, got FeatureSpec"),
        (lambda: FeatureSpec(1, 1, 2**16 + 1), "65,536 features, got FeatureSpec"),
        (lambda: FeatureSpec(512, 513, 1), "262,144 positions .*got FeatureSpec"),
        (lambda: PriorSpec(grids=()), "at least one grid"),
        (lambda: PriorSpec(grids=(GridSpec(512, 513, 2),)), "grids .*256 .*got 1 with 262,656"),
        (lambda: PriorSpec(grids=(GridSpec(1, 1, 2),) * 257), "grids .*256 .*got 257 with 257"),
        (lambda: PriorSpec(grids=GRIDS, context=GRIDS * 129), "context .*256 .*got 258"),
        (lambda: PriorSpec(grids=GRIDS, num_classes=0), "num_classes .*got 0"),
        (lambda: PriorSpec(grids=GRIDS, num_classes=-1), "num_classes .*got -1"),
        (lambda: PriorSpec(grids=GRIDS, num_classes=2**24 + 1), "num_classes .*16,777,216"),
        (lambda: PriorSpec(grids=GRIDS, num_extra_labels=-1), "num_extra_labels .*got -1"),
    ],
)
def test_specs_refuse_values_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("num_classes", "extra", "expected"), [(None, 0, (0, 1)), (3, 0, (3, 4)), (3, 8, (3, 12))]
)
def test_null_label_is_one_past_the_classes_and_before_the_extra_ones(num_classes, extra, expected):
    spec = PriorSpec(grids=GRIDS, num_classes=num_classes, num_extra_labels=extra)
    assert (spec.null_label, spec.num_labels) == expected
    assert spec.num_codes == 8


def test_sequence_holds_grid_after_grid_row_by_row():
    codes = (torch.tensor([[[1, 2]]]), torch.tensor([[[3, 4, 5], [6, 7, 8]]]))
    sequence = to_sequence(codes)
    assert sequence.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert [grid.tolist() for grid in to_grids(sequence, GRIDS)] == [g.tolist() for g in codes]


def test_raster_positions_name_grid_row_and_column():
    grids = (GridSpec(1, 2, 9), GridSpec(2, 2, 9))
    expected = [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]]
    assert raster_positions(grids).tolist() == expected
