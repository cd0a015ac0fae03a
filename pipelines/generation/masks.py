"""Masks of known pixels, and of known codes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor


def half_mask(part: str, height: int, width: int) -> Tensor:
    """Returns a mask bool (H, W), False in one part of an image.

    That part is the half right, left, top or bottom; or in the center half the height by half the
    width.
    """
    half_height, half_width = -(-height // 2), -(-width // 2)
    top, left = (height - half_height) // 2, (width - half_width) // 2
    hidden = {
        "right": (slice(None), slice(width - half_width, None)),
        "left": (slice(None), slice(half_width)),
        "top": (slice(half_height), slice(None)),
        "bottom": (slice(height - half_height, None), slice(None)),
        "center": (slice(top, top + half_height), slice(left, left + half_width)),
    }
    if part not in hidden:
        raise ValueError(f"the part to hide must be one of {', '.join(hidden)}, got {part}")
    mask = torch.ones(height, width, dtype=torch.bool)
    mask[hidden[part]] = False
    return mask


def check_mask(mask: Tensor, images: Tensor) -> Tensor:
    """Expands a mask to bool (B, H, W), one per image."""
    batch, _, height, width = images.shape
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True for a known pixel, got {mask.dtype}")
    if mask.shape not in ((height, width), (batch, height, width)):
        raise ValueError(
            f"mask must have shape ({height}, {width}) or ({batch}, {height}, {width}), one value "
            f"per pixel whatever the channels, got {tuple(mask.shape)}"
        )
    return mask.expand(batch, height, width)


def known_codes(mask: Tensor, shape: tuple[int, int], downsampling: int) -> Tensor:
    """Marks the codes of squares without unknown pixels: bool (B, h, w).

    Args:
        mask: bool (B, H, W), True for a known pixel.
        shape: (h, w) of the code grid.
        downsampling: Side of the square of pixels of a code. Padding beyond the image is known.
    """
    height, width = shape
    padding = (height * downsampling - mask.shape[1], width * downsampling - mask.shape[2])
    padded = F.pad(mask, (0, padding[1], 0, padding[0]), value=True)
    return reduce(
        padded.to(torch.uint8), "b (h i) (w j) -> b h w", "min", i=downsampling, j=downsampling
    ).bool()


def fill_unknown(images: Tensor, mask: Tensor) -> Tensor:
    """Replaces unknown pixels of uint8 (B, C, H, W) by the mean of the known ones.

    Per image and channel; mid-gray where nothing is known. So the values of unknown pixels have no
    influence, and the codes at the border of the mask see a likely tone.
    """
    known = mask[:, None].double()  # (B, 1, H, W)
    count = known.sum(dim=(2, 3), keepdim=True)
    mean = (images.double() * known).sum(dim=(2, 3), keepdim=True) / count.clamp(min=1)
    tone = torch.where(count > 0, mean, 127.5).round().to(torch.uint8)
    return torch.where(mask[:, None], images, tone)
