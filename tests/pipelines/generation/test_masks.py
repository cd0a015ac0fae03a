"""Masks of pixels as masks of codes, and the values of unknown pixels."""

import pytest
import torch

from pipelines.generation.masks import fill_unknown, half_mask, known_codes


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 2), (3, 5), (4, 6)])
def test_one_unknown_pixel_makes_the_code_of_its_square_unknown(row, column):
    mask = torch.ones(1, 5, 7, dtype=torch.bool)
    mask[0, row, column] = False
    known = known_codes(mask, (3, 4), 2)
    assert (~known).nonzero().tolist() == [[0, row // 2, column // 2]]


def test_unknown_pixels_get_the_mean_of_the_known_pixels_of_their_channel():
    images = torch.tensor([[[[10, 20, 99]], [[200, 100, 99]]]], dtype=torch.uint8)
    mask = torch.tensor([[[True, True, False]]])
    assert fill_unknown(images, mask).tolist() == [[[[10, 20, 15]], [[200, 100, 150]]]]


def test_image_without_known_pixels_becomes_gray():
    images = torch.full((1, 1, 2, 2), 9, dtype=torch.uint8)
    filled = fill_unknown(images, torch.zeros(1, 2, 2, dtype=torch.bool))
    assert filled.unique().tolist() == [128]  # 127.5 rounded to even


@pytest.mark.parametrize(
    ("part", "hidden"),
    [
        ("right", [[0, 0, 1, 1, 1]] * 3),
        ("left", [[1, 1, 1, 0, 0]] * 3),
        ("top", [[1] * 5, [1] * 5, [0] * 5]),
        ("bottom", [[0] * 5, [1] * 5, [1] * 5]),
        ("center", [[0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0] * 5]),
    ],
)
def test_odd_sides_hide_the_larger_half(part, hidden):
    assert (~half_mask(part, 3, 5)).int().tolist() == hidden


def test_unknown_part_is_refused():
    message = "the part to hide must be one of right, left, top, bottom, center, got middle"
    with pytest.raises(ValueError, match=message):
        half_mask("middle", 4, 4)
