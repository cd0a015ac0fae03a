"""Masks brought to the form of the images that they belong to."""

import numpy as np
import pytest

from pipelines.data.form import ImageForm
from pipelines.generation.inpainting import fit_mask


def mask_of(shape, *unknown):
    """A mask with single unknown pixels."""
    mask = np.ones(shape, dtype=bool)
    for row, column in unknown:
        mask[row, column] = False
    return mask


def unknown_pixels(mask, size, fit, file_sizes=None):
    """Rows and columns of the unknown pixels of the brought mask."""
    found = fit_mask(mask, ImageForm(size, fit), file_sizes or (mask.shape,))
    assert tuple(found.shape) == size
    return [tuple(place) for place in (~found).nonzero().tolist()]


@pytest.mark.parametrize(
    ("fit", "size", "expected"),
    [
        # A file of 4x8 whose pixels (0, 0) and (3, 6) are unknown.
        ("crop", (4, 4), []),
        ("crop", (4, 6), [(3, 5)]),
        ("crop", (2, 4), [(0, 0), (1, 3)]),
        ("pad", (8, 8), [(2, 0), (5, 6)]),
        ("pad", (4, 4), [(1, 0), (2, 3)]),
        ("pad", (5, 4), [(1, 0), (2, 3)]),
        ("stretch", (4, 4), [(0, 0), (3, 3)]),
        ("stretch", (8, 8), [(0, 0), (1, 0), (6, 6), (7, 6)]),
    ],
)
def test_mask_goes_where_its_image_goes(fit, size, expected):
    mask = mask_of((4, 8), (0, 0), (3, 6))
    if expected:
        assert unknown_pixels(mask, size, fit) == expected
    else:
        with pytest.raises(ValueError, match="lie in what is cut off to get 4 by 4 pixels"):
            unknown_pixels(mask, size, fit)


def test_one_unknown_pixel_of_a_large_file_stays_unknown():
    mask = mask_of((3000, 4000), (1, 3998))
    assert unknown_pixels(mask, (8, 8), "pad") == [(1, 7)]


def test_mask_of_the_size_of_the_run_stays_as_it_is():
    mask = mask_of((4, 4), (1, 2))
    assert unknown_pixels(mask, (4, 4), "crop", [(9, 30)]) == [(1, 2)]


@pytest.mark.parametrize("file_sizes", [(), [(4, 8), (4, 9)], [(8, 4)]])
def test_mask_of_another_size_than_every_file_is_refused(file_sizes):
    with pytest.raises(ValueError, match=r"4 high and 4 wide,.* got 4 and 8"):
        fit_mask(mask_of((4, 8), (0, 0)), ImageForm((4, 4)), file_sizes)
