import numpy as np
import pytest
import torch

from stage1_vqvae.images import pad_to_multiple, to_float, to_uint8

ALL_LEVELS = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


def test_to_uint8_inverts_to_float_for_every_gray_level():
    assert torch.equal(to_uint8(to_float(ALL_LEVELS)), ALL_LEVELS)


def test_to_float_maps_gray_levels_linearly_to_minus_one_to_one():
    expected = np.arange(256, dtype=np.float64) * 2 / 255 - 1
    floats = to_float(ALL_LEVELS)
    assert floats.dtype == torch.float32
    # One rounding of a value up to 2, in float32.
    np.testing.assert_allclose(floats.flatten(), expected, atol=2.5e-7)


def test_to_float_lays_channels_last():
    assert to_float(torch.zeros(2, 3, 4, 5, dtype=torch.uint8)).is_contiguous(
        memory_format=torch.channels_last
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_to_float_of_another_dtype_is_refused(dtype):
    with pytest.raises(TypeError, match=rf"images must be uint8 in \[0, 255\], got {dtype}"):
        to_float(torch.zeros(1, 1, 2, 2, dtype=dtype))


def test_to_float_of_a_single_image_is_refused():
    with pytest.raises(ValueError, match=r"images must have shape \(B, C, H, W\), got \(3, 8, 8\)"):
        to_float(torch.zeros(3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize(("value", "level"), [(-9.0, 0), (-1.0, 0), (1.0, 255), (9.0, 255)])
def test_to_uint8_clamps(value, level):
    assert to_uint8(torch.tensor([value])).item() == level


@pytest.mark.parametrize(("fraction", "level"), [(0.4, 7), (0.6, 8)])
def test_to_uint8_rounds_to_the_nearest_level(fraction, level):
    assert to_uint8(torch.tensor([(7 + fraction) / 127.5 - 1])).item() == level


def test_to_uint8_of_bfloat16_rounds_in_float32():
    # Exact in bfloat16, unlike (0.30078125 + 1) * 127.5 = 165.85, which would become 165.
    assert to_uint8(torch.tensor([0.30078125], dtype=torch.bfloat16)).item() == 166


@pytest.mark.parametrize(
    ("size", "multiple"), [((5, 7), 2), ((1, 1), 16), ((4, 6), 16), ((4, 6), 2), ((3, 16), 16)]
)
def test_pad_to_multiple_repeats_the_last_row_and_column(size, multiple):
    images = torch.randn(2, 3, *size)
    bottom, right = (int(np.ceil(side / multiple)) * multiple - side for side in size)
    expected = np.pad(images.numpy(), ((0, 0), (0, 0), (0, bottom), (0, right)), mode="edge")
    np.testing.assert_array_equal(pad_to_multiple(images, multiple), expected)


def test_pad_to_multiple_copies_nothing_where_the_size_fits():
    images = torch.randn(1, 1, 4, 8)
    assert pad_to_multiple(images, 4) is images
