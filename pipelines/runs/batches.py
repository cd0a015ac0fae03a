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


def image_batches(images: ImageSet, device: torch.device) -> Iterator[Tensor]:
    """Yields batches of images, uint8 (B, C, H, W) on `device`."""
    _, height, width = images.image_shape
    size = _batch_size(_EVALUATION_PIXELS // (height * width))
    for start in range(0, len(images), size):
        yield torch.from_numpy(images.images[start : start + size].copy()).to(device)


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
    size = _batch_size(_EVALUATION_CODES // sum(grid[0].numel() for grid in split.codes))
    for start in range(0, len(split), size):
        rows = slice(start, start + size)
        part = split.rows(rows)
        yield tuple(grid.long() for grid in part.codes), part.labels, context_rows(context, rows)


def _batch_size(fitting: int) -> int:
    return max(1, min(fitting, _EVALUATION_BATCH))


def context_rows(context: Context | None, rows: slice | Tensor) -> Context | None:
    """Selects rows of a context of either form."""
    if context is None:
        return None
    if isinstance(context, Tensor):
        return context[rows]
    return tuple(grid[rows] for grid in context)
