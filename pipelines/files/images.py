"""Generated images on disk: a grid, single files, or an array."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from einops import rearrange
from PIL import Image

from pipelines.files.atomic import atomic_path, refuse_existing, refuse_unwritable

_GAP = 2  # pixels between the images of a grid
_GRID_SIDE = 800  # small images are enlarged, each pixel to a square, to about this width


def save_images(path: Path, images: np.ndarray, labels: np.ndarray | None = None) -> str:
    """Writes images in the form that `path` asks for; returns what was written, in words.

    Args:
        path: New. `FILE.png`: one grid, as square as can be. `FILE.npz`: arrays `images`
            (N, H, W[, C]) and `labels` (N,), which `--data.source npz:FILE.npz` reads. Without an
            ending: a directory of single PNG files.
        images: uint8 (N, C, H, W), C = 1 or 3 for single files.
        labels: int64 (N,), written to npz files and into the names of single files.
    """
    check_output(path)
    if path.suffix == ".png":
        save_grid(path, images)
        return f"a grid of {len(images)} images to {path}"
    if path.suffix == ".npz":
        _save_npz(path, images, labels)
        return f"{len(images)} images to {path}"
    with atomic_path(path) as partial:
        partial.mkdir()
        for i, image in enumerate(images):
            suffix = "" if labels is None else f"-{labels[i]}"
            to_pil(image).save(partial / f"{i:05d}{suffix}.png")
    return f"{len(images)} PNG files to {path}"


def check_output(path: Path) -> None:
    """Refuses early, before any work, what `save_images` would refuse at the end."""
    refuse_existing(path)
    if path.suffix not in ("", ".png", ".npz"):
        raise ValueError(f"an output must end in .png or .npz or have no ending, got {path}")
    refuse_unwritable(path)


def check_png(path: Path | None, folder: Path) -> None:
    """Refuses, before any work, a `path` (None: one in `folder`) where no new PNG can be saved."""
    if path is not None:
        refuse_existing(path)
        if path.suffix != ".png":
            raise ValueError(f"an output must end in .png, got {path}")
    refuse_unwritable(path or folder)


def save_grid(path: Path, images: np.ndarray, columns: int | None = None) -> None:
    """Writes uint8 (N, C, H, W) as one PNG; see `draw_grid`."""
    picture = draw_grid(images, columns)
    with atomic_path(path) as partial:
        picture.save(partial)


def save_reconstructions(path: Path, images: np.ndarray, reconstructions: np.ndarray) -> None:
    """Writes images above their reconstructions as one PNG; see `draw_reconstructions`."""
    picture = draw_reconstructions(images, reconstructions)
    with atomic_path(path) as partial:
        picture.save(partial)


def draw_grid(images: np.ndarray, columns: int | None = None) -> Image.Image:
    """Draws uint8 images (N, C, H, W) in a grid, as square as can be if `columns` is None."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    return to_pil(image_grid(viewable(images), columns))


def draw_reconstructions(
    images: np.ndarray, reconstructions: np.ndarray, columns: int = 8
) -> Image.Image:
    """Draws rows of images, each above the row of reconstructions; both uint8 (N, C, H, W)."""
    return to_pil(pair_grid(viewable(images), viewable(reconstructions), columns))


def image_grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Arranges uint8 (N, C, H, W) in rows on white, enlarged if small: uint8 (C, H', W')."""
    count, channels, height, width = images.shape
    scale = max(1, _GRID_SIDE // (columns * (width + _GAP)))
    images = images.repeat(scale, axis=2).repeat(scale, axis=3)
    height, width = height * scale, width * scale
    rows = -(-count // columns)
    shape = (channels, rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP)
    grid = np.full(shape, 255, dtype=np.uint8)
    for i, image in enumerate(images):
        top = _GAP + (i // columns) * (height + _GAP)
        left = _GAP + (i % columns) * (width + _GAP)
        grid[:, top : top + height, left : left + width] = image
    return grid


def pair_grid(originals: np.ndarray, reconstructions: np.ndarray, columns: int) -> np.ndarray:
    """Arranges rows of originals, each above the row of reconstructions: uint8 (C, H', W')."""
    blank = np.full_like(originals[:1], 255)
    rows = []
    for start in range(0, len(originals), columns):
        for images in (originals, reconstructions):
            row = images[start : start + columns]
            rows += [row, np.repeat(blank, columns - len(row), axis=0)]
    return image_grid(np.concatenate(rows), columns)


def viewable(images: np.ndarray) -> np.ndarray:
    """Puts the channels of images (N, C, H, W) side by side in gray, unless C is 1 or 3."""
    if images.shape[1] in (1, 3):
        return images
    return rearrange(images, "n c h w -> n 1 h (c w)")


def to_pil(image: np.ndarray) -> Image.Image:
    """Converts uint8 (C, H, W) with one or three channels to a Pillow image."""
    if image.shape[0] not in (1, 3):
        raise ValueError(
            f"a PNG needs 1 or 3 channels, got {image.shape[0]}: write an .npz file instead"
        )
    return Image.fromarray(image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0))


def _save_npz(path: Path, images: np.ndarray, labels: np.ndarray | None) -> None:
    pixels = images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
    with atomic_path(path) as partial:
        if labels is None:
            np.savez_compressed(partial, images=pixels)
        else:
            np.savez_compressed(partial, images=pixels, labels=labels)
