import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipelines.data import pixels as pixels_module
from pipelines.data.form import ImageForm
from pipelines.data.image_set import ImageSet
from pipelines.data.pixels import fit_images, fitted, to_mode, to_pixels, upright_size

LANCZOS = Image.Resampling.LANCZOS
RANDOM = np.random.default_rng(1).integers(0, 256, (4, 8, 3), dtype=np.uint8)


def through_file(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    file.seek(0)
    return Image.open(file)


def first_pixel(image, channels):
    return to_pixels(image, ImageForm(), channels)[:, 0, 0].tolist()


def test_to_pixels_moves_channels_first():
    image = through_file(Image.fromarray(RANDOM), "PNG")
    np.testing.assert_array_equal(to_pixels(image, ImageForm(), 3), np.moveaxis(RANDOM, -1, 0))


def test_to_pixels_gives_gray_one_channel():
    image = through_file(Image.fromarray(RANDOM[..., 0]), "PNG")
    np.testing.assert_array_equal(to_pixels(image, ImageForm(), 1), RANDOM[None, ..., 0])


def test_to_pixels_repeats_gray_for_rgb():
    assert first_pixel(through_file(Image.new("L", (2, 2), 77), "PNG"), 3) == [77, 77, 77]


def test_to_pixels_rounds_16_bits_to_8():
    levels = np.array([[0, 128, 129, 255, 257 * 7, 65535 - 129, 65535 - 128, 65535]], np.uint16)
    pixels = to_pixels(through_file(Image.fromarray(levels), "PNG"), ImageForm(), 1)
    assert pixels[0, 0].tolist() == np.round(levels[0] / 257).astype(int).tolist()


def test_to_pixels_puts_half_transparent_rgb_on_white():
    # As below, for each channel.
    image = through_file(Image.new("RGBA", (2, 2), (10, 60, 110, 51)), "PNG")
    assert first_pixel(image, 3) == [206, 216, 226]


def test_to_pixels_puts_half_transparent_gray_on_white():
    # 10 * 51/255 + 255 * 204/255 = 206
    assert first_pixel(through_file(Image.new("LA", (2, 2), (10, 51)), "PNG"), 1) == [206]


def test_to_pixels_puts_a_transparent_colour_of_a_palette_on_white():
    image = through_file(Image.new("P", (2, 2), 0), "PNG", transparency=0)
    assert first_pixel(image, 3) == [255, 255, 255]


def png(depth, colour, samples, transparent):
    """A PNG of one row whose samples are given in the file's own depth."""
    if depth < 8:
        bits = "".join(f"{sample:0{depth}b}" for sample in samples)
        row = int(bits.ljust(8, "0"), 2).to_bytes(1, "big")
    else:
        row = b"".join(sample.to_bytes(depth // 8, "big") for sample in samples)
    width = len(samples) // len(transparent)
    header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        (b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)),
        (b"IDAT", zlib.compress(b"\0" + row)),
        (b"IEND", b""),
    ]
    packed = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(packed)))


@pytest.mark.parametrize("depth", [2, 4, 16])
def test_to_pixels_puts_a_transparent_gray_level_of_any_depth_on_white(depth):
    largest = 2**depth - 1
    for level in {0, 1, largest // 3, largest}:
        other = largest - level
        pixels = to_pixels(png(depth, 0, [level, other], [level]), ImageForm(), 1)
        assert pixels.tolist() == [[[255, round(255 * other / largest)]]]


def test_to_pixels_keeps_16_bit_levels_beside_the_transparent_one():
    pixels = to_pixels(png(16, 0, [1000, 1001, 999], [1000]), ImageForm(), 1)
    assert pixels.tolist() == [[[255, 4, 4]]]


@pytest.mark.parametrize("depth", [8, 16])
def test_to_pixels_puts_a_transparent_colour_of_any_depth_on_white(depth):
    low_byte = {8: 0, 16: 99}[depth]
    samples = [(value << (depth - 8)) + low_byte for value in (10, 20, 30, 30, 20, 10)]
    pixels = to_pixels(png(depth, 2, samples, samples[:3]), ImageForm(), 3)
    assert pixels[:, 0].T.tolist() == [[255, 255, 255], [30, 20, 10]]


@pytest.mark.parametrize("mode", ["RGBA", "I;16"])
def test_to_mode_converts_a_large_image_in_bands_as_a_whole(monkeypatch, mode):
    image = Image.fromarray(RANDOM).resize((9, 13)).convert("LA" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.arange(117, dtype=np.uint16).reshape(13, 9) * 500)
        image.info["transparency"] = 1000
    whole = np.asarray(to_mode(image, 1))
    monkeypatch.setattr(pixels_module, "BAND_PIXELS", 20)
    np.testing.assert_array_equal(np.asarray(to_mode(image, 1)), whole)


@pytest.mark.parametrize(("mode", "dtype"), [("F", np.float32), ("I", np.int32)])
def test_to_pixels_refuses_a_range_that_nobody_knows(mode, dtype):
    image = through_file(Image.fromarray(np.ones((2, 2), dtype)), "TIFF")
    assert image.mode == mode
    with pytest.raises(ValueError, match="range"):
        to_pixels(image, ImageForm(), 1)


def test_to_pixels_refuses_12_bits():
    # One pixel of 0xFFF. Pillow reads it as 4,095 of 65,535: nearly black.
    tags = {256: 1, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 2}
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags.items())
    tiff = b"II*\0" + struct.pack("<I2sH", 10, b"\xff\xf0", len(tags)) + entries + bytes(4)
    with pytest.raises(ValueError, match="range"):
        to_pixels(Image.open(io.BytesIO(tiff)), ImageForm(), 1)


def test_to_pixels_resolves_a_palette():
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert first_pixel(through_file(image, "PNG"), 3) == [10, 20, 30]


def test_to_pixels_reads_one_bit_images():
    assert first_pixel(through_file(Image.new("1", (2, 2), 1), "PNG"), 1) == [255]


def test_to_pixels_converts_cmyk():
    image = through_file(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    assert first_pixel(image, 3) == [255, 0, 0]


def test_to_pixels_turns_an_image_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # Turn by 90 degrees clockwise to display.
    image = through_file(Image.fromarray(RANDOM), "PNG", exif=exif)
    upright = np.moveaxis(np.rot90(RANDOM, k=-1), -1, 0)
    np.testing.assert_array_equal(to_pixels(image, ImageForm(), 3), upright)


PILLOW = {
    "crop": lambda image, size: ImageOps.fit(image, size, LANCZOS),
    # Just off the centre: an odd pixel is padded below or right.
    "pad": lambda image, size: ImageOps.pad(image, size, LANCZOS, "teal", (0.49, 0.49)),
    "stretch": lambda image, size: image.resize(size, LANCZOS),
}


@pytest.mark.parametrize("fit", PILLOW)
@pytest.mark.parametrize("size", [(24, 32), (40, 12)])
def test_to_pixels_of_a_large_jpeg_equals_a_full_decode_and_resize(fit, size):
    rows, columns = np.mgrid[:400, :600]
    smooth = np.stack([rows / 2, columns / 3, 128 + 100 * np.sin(columns / 40)], -1)
    image, same_image = (
        through_file(Image.fromarray(smooth.astype(np.uint8)), "JPEG", quality=95) for _ in range(2)
    )
    pixels = to_pixels(image, ImageForm(size, fit, "teal"), 3)
    assert image.width in (150, 300)  # A fraction was decoded, at least twice what is asked.
    full = PILLOW[fit](same_image, size[::-1])
    difference = pixels.astype(int) - np.moveaxis(np.asarray(full), -1, 0)
    assert np.abs(difference).max() <= 3  # Rounding of two resamplings; measured 1.


@pytest.mark.parametrize(
    ("size", "kept"),
    [((4, 4), np.s_[:, 2:6]), ((2, 8), np.s_[1:3, :])],
)
def test_crop_is_about_the_centre(size, kept):
    # One side fits exactly, so nothing is resampled.
    image = fitted(Image.fromarray(RANDOM), size, "crop", (0, 0, 0))
    np.testing.assert_array_equal(np.asarray(image), RANDOM[kept])


@pytest.mark.parametrize(
    ("size", "inside"),
    [((9, 8), np.s_[2:6, :]), ((4, 13), np.s_[:, 2:10])],
    ids=["rows", "columns"],
)
def test_pad_surrounds_the_whole_image_with_the_padding(size, inside):
    # One side fits exactly, so nothing is resampled; the odd pixel is padded below or right.
    expected = np.full((*size, 3), (9, 8, 7), np.uint8)
    expected[inside] = RANDOM
    image = fitted(Image.fromarray(RANDOM), size, "pad", (9, 8, 7))
    np.testing.assert_array_equal(np.asarray(image), expected)


def test_stretch_resizes_one_side_only_where_the_other_fits():
    # Rows are alike, so that any number of them is the same row.
    rows = np.repeat(RANDOM[:1], 4, axis=0)
    image = fitted(Image.fromarray(rows), (10, 8), "stretch", (0, 0, 0))
    np.testing.assert_array_equal(np.asarray(image), np.repeat(RANDOM[:1], 10, axis=0))


@pytest.mark.parametrize("fit", PILLOW)
@pytest.mark.parametrize(
    ("shape", "size"), [((1, 900), (8, 6)), ((900, 1), (5, 8)), ((2, 3), (7, 7))]
)
def test_any_shape_is_brought_to_any_size(fit, shape, size):
    image = fitted(Image.fromarray(np.full(shape, 50, np.uint8)), size, fit, 9)
    levels, counts = np.unique(np.asarray(image), return_counts=True)
    assert np.asarray(image).shape == size
    if fit == "pad":
        lines = {(1, 900): 6, (900, 1): 5, (2, 3): 7 * 5}  # 7 / 3 * 2 = 4.7
        assert dict(zip(levels.tolist(), counts.tolist(), strict=True))[50] == lines[shape]
    else:
        assert levels.tolist() == [50]


@pytest.mark.parametrize(
    ("background", "rgb"),
    [("teal", (0, 128, 128)), ("#1020Ff", (16, 32, 255)), ("Black", (0, 0, 0))],
)
def test_half_transparent_pixels_are_composited_on_the_background(background, rgb):
    form = ImageForm(background=background)
    image = Image.new("RGBA", (2, 2), (10, 60, 110, 51))  # 51 / 255 = 0.2
    expected = 0.2 * np.array([10, 60, 110]) + 0.8 * np.array(rgb)
    colour = to_pixels(through_file(image, "PNG"), form, 3)[:, 0, 0]
    np.testing.assert_allclose(colour, expected, atol=0.51)  # rounded once
    luma = to_pixels(through_file(image, "PNG"), form, 1)[0, 0, 0]
    assert abs(luma - np.array([0.299, 0.587, 0.114]) @ expected) <= 1.01  # rounded twice


def test_transparent_16_bit_level_becomes_the_background_in_colour():
    pixels = to_pixels(png(16, 0, [1000, 65535], [1000]), ImageForm(background="teal"), 3)
    assert pixels[:, 0].T.tolist() == [[0, 128, 128], [255, 255, 255]]


def test_padding_of_gray_images_is_the_luma_of_the_background():
    form = ImageForm((2, 1), "pad", "#ff0000")
    pixels = to_pixels(through_file(Image.new("L", (1, 1), 50), "PNG"), form, 1)
    assert pixels[0].tolist() == [[50], [76]]  # 0.299 * 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_upright_size_is_that_of_the_pixels(orientation, file_format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = through_file(Image.new("RGB", (6, 4)), file_format, exif=exif)
    size = upright_size(image, image.size)
    assert to_pixels(image, ImageForm(), 3).shape[1:] == size


def rgb_set():
    pixels = np.random.default_rng(2).integers(0, 256, (5, 3, 6, 4), dtype=np.uint8)
    return ImageSet(pixels, np.arange(5))


def test_fit_images_without_wishes_gives_the_same_object():
    images = rgb_set()
    assert fit_images(images, ImageForm(), None) is images
    assert fit_images(images, ImageForm((6, 4)), 3) is images


def test_fit_images_to_gray_equals_pillow():
    images = rgb_set()
    gray = fit_images(images, ImageForm(), 1)
    for pixels, rgb in zip(gray.images, images.images, strict=True):
        pillow = Image.fromarray(np.moveaxis(rgb, 0, -1)).convert("L")
        np.testing.assert_array_equal(pixels[0], np.asarray(pillow))


def test_fit_images_to_rgb_repeats_the_gray_channel():
    gray = ImageSet(rgb_set().images[:, :1])
    rgb = fit_images(gray, ImageForm(), 3)
    np.testing.assert_array_equal(rgb.images, np.concatenate([gray.images] * 3, axis=1))


@pytest.mark.parametrize("fit", PILLOW)
def test_fit_images_resizes_rgb_as_pillow_does(fit):
    images = rgb_set()
    resized = fit_images(images, ImageForm((3, 3), fit, "teal"), None)
    assert resized.labels.tolist() == [0, 1, 2, 3, 4]
    for pixels, rgb in zip(resized.images, images.images, strict=True):
        pillow = PILLOW[fit](Image.fromarray(np.moveaxis(rgb, 0, -1)), (3, 3))
        np.testing.assert_array_equal(pixels, np.moveaxis(np.asarray(pillow), -1, 0))


def test_fit_images_refuses_to_guess_colours():
    two_channels = ImageSet(np.zeros((1, 2, 4, 4), np.uint8))
    message = r"converted to 3, got 2: .*data\.channels"
    with pytest.raises(ValueError, match=message):
        fit_images(two_channels, ImageForm(), 3)
