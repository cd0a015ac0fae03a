"""The form that images are brought to. Imports no numpy, so that `--help` is fast."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.files.names import counted, printable

Fit = Literal["crop", "pad", "stretch"]


@dataclass(frozen=True, slots=True)
class ImageForm:
    """Size that images are brought to, and what becomes of other shapes and of transparency."""

    size: tuple[int, int] | None = None
    """Height and width in pixels; None keeps the images' own."""
    fit: Fit = "crop"
    """How images of another aspect ratio get it."""
    background: str = "white"
    """Colour below transparent pixels, and of the padding."""


def check_background(background: str) -> None:
    """Refuses what is neither #rrggbb nor the name of a colour.

    Pillow, which knows the names, is imported for those other than white only.
    """
    if background == "white" or re.fullmatch("#[0-9a-fA-F]{6}", background):
        return
    names = importlib.import_module("PIL.ImageColor").colormap
    if background.lower() not in names:
        nearest = difflib.get_close_matches(background.lower(), names, n=1)
        advice = f"did you mean {nearest[0]}?" if nearest else "black and #808080 are two"
        raise ValueError(
            "data.background must be the name of a colour or #rrggbb, got "
            f"{printable(background)}: {advice}"
        )


def kept_by_crop(size: tuple[int, int], wanted: tuple[int, int]) -> float:
    """Returns the share of an image's pixels that a crop to the aspect ratio of `wanted` keeps.

    Both are height and width; the share is in (0, 1].
    """
    ratio = size[0] * wanted[1] / (size[1] * wanted[0])
    return min(ratio, 1 / ratio)


def describe_losses(
    sizes: Sequence[tuple[int, int]], num_transparent: int, form: ImageForm
) -> Iterator[str]:
    """Yields sentences on what is lost of images, by cropping and below transparency.

    Args:
        sizes: Height and width of each image.
        num_transparent: How many of them may have transparent pixels.
        form: What they are brought to.
    """
    cropped = 0
    if form.size is not None and form.fit == "crop":
        cropped = sum(kept_by_crop(size, form.size) < 2 / 3 for size in sizes)
    if cropped:
        yield (
            f"{cropped:,} of {counted(len(sizes), 'image')} lose more than a third of their pixels "
            "to the crop: --data.fit pad keeps images whole"
        )
    if num_transparent:
        yield (
            f"{num_transparent:,} of {counted(len(sizes), 'image')} may have transparent pixels, "
            f"which become {printable(form.background)} (--data.background)"
        )
