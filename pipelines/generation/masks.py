"""Images with unknown pixels: which codes are known, and what to encode in a hole's place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor


def half_mask(part: str, height: int, width: int) -> Tensor:
    """A mask bool (H, W) that hides one part of an image.

    Args:
        part: right, left, top or bottom, half of the image each; or center, half of its height by
            half of its width.
        height: H.
        width: W.

    Raises:
        ValueError: There is no such part.
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
    """The mask as bool (B, H, W), one per image.

    Raises:
        TypeError: It is not bool.
        ValueError: It does not have the images' shape.
    """
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
    """Which codes stand for known pixels only: bool (B, h, w).

    Args:
        mask: bool (B, H, W), True for a known pixel.
        shape: (h, w) of the code grid.
        downsampling: Side of the square of pixels that a code stands for. Squares may reach beyond
            the image, where nothing is missing.
    """
    height, width = shape
    missing = (height * downsampling - mask.shape[1], width * downsampling - mask.shape[2])
    whole = F.pad(mask, (0, missing[1], 0, missing[0]), value=True)
    return reduce(
        whole.to(torch.uint8), "b (h i) (w j) -> b h w", "min", i=downsampling, j=downsampling
    ).bool()


def fill_unknown(images: Tensor, mask: Tensor) -> Tensor:
    """Images uint8 (B, C, H, W) whose unknown pixels have the mean of the known ones.

    Channel by channel and image by image; mid-gray where nothing is known. What the unknown pixels
    held has no influence then, while codes beside a hole see something of a likely tone.
    """
    known = mask[:, None].double()  # (B, 1, H, W)
    count = known.sum(dim=(2, 3), keepdim=True)
    mean = (images.double() * known).sum(dim=(2, 3), keepdim=True) / count.clamp(min=1)
    tone = torch.where(count > 0, mean, 127.5).round().to(torch.uint8)
    return torch.where(mask[:, None], images, tone)
