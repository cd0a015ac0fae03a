"""Images as data: URIs that hold exactly their pixels."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from pipelines.report.pictures import (
    GAP,
    data_uri,
    image_row,
    images_per_block,
    picture_row,
    stacked,
    zooms,
)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def decoded(uri):
    header, _, data = uri.partition(",")
    assert header == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
        return np.asarray(image)


def test_data_uri_holds_the_pixels():
    for pixels in (noise(5, 7, 2), noise(5, 7, 4)):
        np.testing.assert_array_equal(decoded(data_uri(pixels)), pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_stand_side_by_side_with_transparent_gaps(channels):
    images = noise(3, channels, 4, 6)
    row = image_row(images)
    assert row.shape == (4, 3 * 6 + 2 * GAP, channels + 1)
    for i, image in enumerate(images):
        shown = row[:, i * (6 + GAP) :][:, :6]
        np.testing.assert_array_equal(shown[..., :channels], image.transpose(1, 2, 0))
        assert (shown[..., channels] == 255).all()
    gaps = [c for c in range(row.shape[1]) if c % (6 + GAP) >= 6]
    assert (row[:, gaps, channels] == 0).all()


def test_other_channels_are_shown_side_by_side():
    images = noise(2, 4, 5, 3)
    row = image_row(images)
    assert row.shape == (5, 2 * 12 + GAP, 2)
    np.testing.assert_array_equal(row[:, :12, 0], np.concatenate(list(images[0]), axis=1))


def test_shorter_rows_are_filled_up_with_transparency():
    long, short = image_row(noise(3, 1, 4, 6)), image_row(noise(2, 1, 4, 6))
    sheet = stacked([long, short])
    assert sheet.shape == (4 + GAP + 4, long.shape[1], 2)
    np.testing.assert_array_equal(sheet[:4], long)
    np.testing.assert_array_equal(sheet[4 + GAP :, : short.shape[1]], short)
    assert (sheet[4 + GAP :, short.shape[1] :, 1] == 0).all()


def test_blocks_of_a_row_together_hold_all_its_images():
    originals, others = noise(10, 1, 28, 28), noise(10, 1, 28, 28) // 2
    row = ElementTree.fromstring(picture_row([originals, others], "digits"))
    blocks = [decoded(image.get("src")) for image in row]
    expected = [
        stacked([image_row(originals[s]), image_row(others[s])])
        for s in (slice(0, 5), slice(5, 10))
    ]
    assert len(blocks) == 2
    for block, pixels in zip(blocks, expected, strict=True):
        np.testing.assert_array_equal(block, pixels)
    assert [image.get("alt") for image in row] == [
        "digits, 1 to 5 of 10",
        "digits, 6 to 10 of 10",
    ]


def test_alternative_text_is_escaped():
    row = ElementTree.fromstring(picture_row([noise(1, 1, 4, 4)], 'a "<b>" & c'))
    assert row[0].get("alt") == 'a "<b>" & c, 1 of 1'


@pytest.mark.parametrize(("columns", "width"), [(10, 3), (7, 28), (4, 64), (4, 100), (1, 1000)])
def test_zoom_is_a_whole_number_and_a_block_fits_a_phone_if_an_image_does(columns, width):
    row = ElementTree.fromstring(picture_row([noise(columns, 1, 2, width)], "x"))
    for image in row:
        own = int(image.get("width"))
        small = int(re.search(r"--s:(\d+)", image.get("style"))[1])
        assert small >= 1
        assert own * small <= 328 or own == width
        assert f"--w:{own};" in image.get("style")


@pytest.mark.parametrize(("columns", "width", "expected"), [(10, 28, 5), (4, 256, 1)])
def test_row_breaks_in_the_middle_or_into_single_large_images(columns, width, expected):
    assert images_per_block(columns, width) == expected


def test_zoom_grows_with_the_page():
    assert zooms(264 // 2, 264) == {"s": 2, "m": 2, "l": 3}
