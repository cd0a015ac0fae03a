"""Conversion of images of any mode and size to uint8 pixels."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageColor, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from pipelines.data.form import Fit, ImageForm
from pipelines.data.image_set import ImageSet

GRAY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"})
ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
BAND_PIXELS = 2**20  # Converted at once: a large image is not copied as a whole.


def fitted(
    image: Image.Image,
    size: tuple[int, int],
    fit: Fit,
    padding: int | tuple[int, ...],
    resampling: Image.Resampling = Image.Resampling.LANCZOS,
) -> Image.Image:
    """Brings `image` to `size` (height, width).

    Args:
        image: Of a mode that can be resampled.
        size: Height and width in pixels.
        fit: crop resizes to just cover the size and crops about the centre, pad resizes to just fit
            inside and pads on both sides, stretch resizes both sides.
        padding: Value of padded pixels, in the image's mode.
        resampling: Filter.
    """
    height, width = size
    if image.size == (width, height):
        return image
    if fit == "crop":
        return ImageOps.fit(image, (width, height), method=resampling)
    if fit == "stretch":
        return image.resize((width, height), resampling)
    scale = min(height / image.height, width / image.width)
    inside = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
    padded = Image.new(image.mode, (width, height), padding)
    corner = ((width - inside[0]) // 2, (height - inside[1]) // 2)
    padded.paste(image.resize(inside, resampling), corner)
    return padded


def to_mode(image: Image.Image, channels: int, background: str = "white") -> Image.Image:
    """Converts any image of known range (no 32-bit integers or floats) to 8 bits, gray or RGB.

    Transparent pixels are composited on `background`, 16-bit gray is rounded to 8 bits, CMYK and
    palettes are resolved.
    """
    mode = "L" if channels == 1 else "RGB"
    if image.mode == mode and "transparency" not in image.info:
        return image
    width, height = image.size
    rows = max(1, BAND_PIXELS // width)
    if rows >= height:
        return _band_to_mode(image, mode, background)
    converted = Image.new(mode, image.size)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        converted.paste(_band_to_mode(band, mode, background), (0, top))
    return converted


def _band_to_mode(image: Image.Image, mode: str, background: str) -> Image.Image:
    if image.mode.startswith("I"):
        levels = np.asarray(image).clip(0, 65535).astype(np.uint32)
        transparent = levels == image.info.get("transparency", -1)
        image = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
        if transparent.any():
            image.putalpha(Image.fromarray(np.where(transparent, 0, 255).astype(np.uint8)))
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return image if image.mode == mode else image.convert(mode)


def to_pixels(image: Image.Image, form: ImageForm, channels: int) -> NDArray[np.uint8]:
    """Decodes a freshly opened image file, upright, in the given form and channels.

    The EXIF orientation is applied; of several frames or pages the first is taken.

    Returns:
        uint8 (C, H, W).

    Raises:
        ValueError: The range of the pixels is unknown.
    """
    shrink_on_load(image, form.size)
    raw_mode = _raw_mode(image)
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF") or raw_mode == "I;12":
        raise ValueError("the range of its pixels is not known: save it with 8 or 16 bits")
    ImageOps.exif_transpose(image, in_place=True)
    _scale_transparency(image, raw_mode)
    image = to_mode(image, channels, form.background)
    if form.size is not None:
        padding = ImageColor.getcolor(form.background, image.mode)
        image = fitted(image, form.size, form.fit, padding)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def shrink_on_load(image: Image.Image, image_size: tuple[int, int] | None) -> None:
    """Lets a JPEG decode at a fraction of its size, in a fraction of the time.

    Both sides keep at least twice the larger requested one, so that resampling gives the same
    pixels, whichever way the image is fitted or turned.
    """
    if image_size is not None and isinstance(image, JpegImageFile):
        image.draft(None, (2 * max(image_size), 2 * max(image_size)))


def upright_size(image: Image.Image, size: tuple[int, int]) -> tuple[int, int]:
    """Returns the height and width that an image of `size` (width, height) has when upright.

    Only metadata that stand before the pixels count, so that nothing is decoded.
    """
    width, height = size
    # A TIFF's size is upright already; a PNG would be decoded to search its end for metadata.
    is_known = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
    is_turned = is_known and image.getexif().get(ExifTags.Base.Orientation) in range(5, 9)
    return (width, height) if is_turned else (height, width)


def _raw_mode(image: Image.Image) -> object:
    """Returns the mode of the pixels in the file, which may differ from that of the image."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return None
    arguments = tiles[0].args
    return arguments[0] if isinstance(arguments, tuple) and arguments else arguments


def _scale_transparency(image: Image.Image, raw_mode: object) -> None:
    """Scales a PNG's transparent level from the file's bit depth to 8 bits, like its pixels."""
    level = image.info.get("transparency")
    if isinstance(level, int) and raw_mode in ("L;2", "L;4"):
        image.info["transparency"] = level * (85 if raw_mode == "L;2" else 17)
    elif isinstance(level, tuple) and raw_mode == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in level)


def fit_images(images: ImageSet, form: ImageForm, channels: int | None) -> ImageSet:
    """Converts images in memory to the given form and channels; None keeps their own.

    Returns:
        uint8 (N, channels, *form.size) with the same labels; `images` itself if nothing changes.

    Raises:
        ValueError: `channels` is given and the images are neither gray nor RGB.
    """
    pixels = images.images
    count, have, *size = pixels.shape
    if channels is not None and channels != have:
        if have not in (1, 3):
            raise ValueError(
                f"only images of 1 or 3 channels can be converted to {channels}, got {have}: "
                "leave data.channels out"
            )
        pixels = _to_gray(pixels) if channels == 1 else np.repeat(pixels, 3, axis=1)
    if form.size is not None and list(form.size) != size:
        resized = np.empty((count, pixels.shape[1], *form.size), np.uint8)
        colour = ImageColor.getrgb(form.background)
        luma = ImageColor.getcolor(form.background, "L")
        padding = colour if pixels.shape[1] == 3 else [luma] * pixels.shape[1]
        for index in np.ndindex(resized.shape[:2]):
            channel = Image.fromarray(pixels[index])
            resized[index] = np.asarray(fitted(channel, form.size, form.fit, padding[index[1]]))
        pixels = resized
    return images if pixels is images.images else ImageSet(pixels, images.labels)


def _to_gray(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Computes the luma of uint8 RGB (N, 3, H, W): (N, 1, H, W).

    ITU-R 601-2, rounded like Pillow. One image at a time: the 32-bit products of a whole set would
    need several times its memory.
    """
    weights = np.array([19595, 38470, 7471], np.uint32)
    gray = np.empty((len(pixels), 1, *pixels.shape[2:]), np.uint8)
    for target, rgb in zip(gray, pixels, strict=True):
        target[0] = cast(NDArray[np.uint32], np.tensordot(weights, rgb, axes=1) + 0x8000) >> 16
    return gray
