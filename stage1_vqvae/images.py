"""Conversion of images between uint8 outside and float32 in [-1, 1] inside, and padding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """Maps uint8 (B, C, H, W) to float32 in [-1, 1], channels last in memory.

    Raises:
        TypeError: The images are not uint8.
        ValueError: They do not have four axes.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8 in [0, 255], got {images.dtype}: convert them first")
    if images.ndim != 4:
        raise ValueError(f"images must have shape (B, C, H, W), got {tuple(images.shape)}")
    return images.to(torch.float32, memory_format=torch.channels_last).div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> Tensor:
    """Maps floats in [-1, 1] to uint8, rounding to the nearest and clamping; inverts `to_float`."""
    return images.float().add(1).mul(127.5).round_().clamp_(0, 255).to(torch.uint8)


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Repeats the last row and column of (B, C, H, W) up to the next multiples of `multiple`."""
    height, width = images.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not bottom and not right:
        return images
    return F.pad(images, (0, right, 0, bottom), mode="replicate")
