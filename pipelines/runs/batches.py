"""Whole splits through a model in batches, every image once and in order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.data.image_set import ImageSet
from stage1_vqvae.base import ImageTokenizer
from stage1_vqvae.code_dump import SplitCodes
from stage2_prior.sampling.checks import Context

# Images measured or encoded at once: enough to be fast, few enough for little memory. Large images,
# and those of many codes, take fewer.
_EVALUATION_BATCH = 256
_EVALUATION_PIXELS = 1 << 20
_EVALUATION_CODES = 1 << 16


def image_batches(
    images: ImageSet, device: torch.device, rows: Tensor | None = None
) -> Iterator[Tensor]:
    """Yields batches of all images or of those at `rows`, int64 (N,): uint8 (B, C, H, W)."""
    size = images_at_once(images.image_shape, _EVALUATION_BATCH)
    for part in torch.split(torch.arange(len(images)) if rows is None else rows, size):
        yield torch.from_numpy(images.images[part.numpy()]).to(device)


def images_at_once(image_shape: tuple[int, int, int], most: int) -> int:
    """Returns how many images (C, H, W) are encoded at once: `most`, and fewer large ones."""
    _, height, width = image_shape
    return max(1, min(_EVALUATION_PIXELS // (height * width), most))


def labelled_batches(
    images: ImageSet, device: torch.device
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yields batches of `image_batches`, each with its labels int64 (B,) or None."""
    labels = None if images.labels is None else torch.from_numpy(images.labels.copy())
    start = 0
    for batch in image_batches(images, device):
        end = start + len(batch)
        yield batch, None if labels is None else labels[start:end]
        start = end


@torch.no_grad()
def reconstruct_images(model: ImageTokenizer, images: ImageSet) -> NDArray[np.uint8]:
    """Reconstructs images of any size with a VQ-VAE on any device: uint8 (N, C, H, W)."""
    _, height, width = images.image_shape
    device = next(model.parameters()).device
    batches = [
        model.decode(model.encode(batch), size=(height, width)).cpu()
        for batch in image_batches(images, device)
    ]
    reconstructed: NDArray[np.uint8] = torch.cat(batches).numpy()
    return reconstructed


def code_batches(
    split: SplitCodes, context: Context | None = None
) -> Iterator[tuple[tuple[Tensor, ...], Tensor | None, Context | None]]:
    """Yields code grids int64 (B, h, w), labels and context of a dumped split, in order."""
    num_codes = sum(grid[0].numel() for grid in split.codes)
    size = max(1, min(_EVALUATION_CODES // num_codes, _EVALUATION_BATCH))
    for start in range(0, len(split), size):
        rows = slice(start, start + size)
        part = split.rows(rows)
        yield tuple(grid.long() for grid in part.codes), part.labels, context_rows(context, rows)


def context_rows(context: Context | None, rows: slice | Tensor) -> Context | None:
    """Selects rows of a context of either form."""
    if context is None:
        return None
    if isinstance(context, Tensor):
        return context[rows]
    return tuple(grid[rows] for grid in context)
