"""Rows of images as data: URIs, at whole-number zooms."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.files.images import viewable
from pipelines.report.markup import element

# Transparent pixels between images, for light and dark pages.
GAP = 2
# Width of a row of images on a phone, a small and a large screen, in CSS pixels.
_WIDTHS = {"s": 328, "m": 640, "l": 800}
_MAX_ZOOM = 6


def image_row(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Puts uint8 images (N, C, H, W) side by side with transparent gaps.

    Channels that are neither gray nor RGB are shown side by side.

    Returns:
        uint8 (H, N * (W + GAP) - GAP, 2 or 4): gray or RGB, and opacity.
    """
    images = viewable(images)
    count, channels, height, width = images.shape
    row = np.zeros((height, count * (width + GAP) - GAP, channels + 1), dtype=np.uint8)
    for i, image in enumerate(images):
        left = i * (width + GAP)
        row[:, left : left + width, :channels] = image.transpose(1, 2, 0)
        row[:, left : left + width, channels] = 255
    return row


def stacked(rows: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Stacks rows of `image_row` with equally many channels on a transparent background."""
    width = max(row.shape[1] for row in rows)
    parts = [np.pad(row, ((0, GAP), (0, width - row.shape[1]), (0, 0))) for row in rows]
    return np.concatenate(parts)[:-GAP]


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """Encodes uint8 (H, W, 2 or 4) as a PNG file in a `data:` URI."""
    buffer = io.BytesIO()
    # Contiguous: Pillow reads the buffer as it lies.
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def zooms(width: int, row_width: int) -> dict[str, int]:
    """Returns whole-number zooms, at least 1, by size of the page.

    `width` is that of one block of a row: on a phone the blocks go below each other.
    """
    needed = {"s": width, "m": row_width, "l": row_width}
    return {size: max(1, min(_MAX_ZOOM, room // needed[size])) for size, room in _WIDTHS.items()}


def images_per_block(columns: int, width: int) -> int:
    """Returns the largest divisor of `columns` that fits a phone, or 1.

    At most half of the images, so that small ones are larger on a phone.
    """
    fits = [n for n in range(1, columns // 2 + 1) if columns % n == 0]
    return max([1, *(n for n in fits if n * (width + GAP) <= _WIDTHS["s"])])


def picture_row(rows: Sequence[NDArray[np.uint8]], alt: str) -> str:
    """Returns stacked rows of images, uint8 (N, C, H, W) each, as blocks that wrap on narrow pages.

    Every pixel is a square of a whole number of CSS pixels; only images wider than a phone are
    shrunk. `alt` begins the alternative text.
    """
    columns = len(rows[0])
    width = viewable(rows[0][:1]).shape[3]
    per_block = images_per_block(columns, width)
    blocks = []
    for start in range(0, columns, per_block):
        stop = min(start + per_block, columns)
        pixels = stacked([image_row(row[start:stop]) for row in rows])
        zoom = zooms(pixels.shape[1], columns * (width + GAP))
        steps = ";".join(f"--{size}:{n}" for size, n in zoom.items())
        number = f"{start + 1} to {stop}" if stop > start + 1 else f"{stop}"
        blocks.append(
            element(
                "img",
                src=data_uri(pixels),
                alt=f"{alt}, {number} of {columns}",
                width=pixels.shape[1],
                height=pixels.shape[0],
                class_="pixels",
                style=f"--w:{pixels.shape[1]};{steps}",
            )
        )
    return element("div", *blocks, class_="row")
