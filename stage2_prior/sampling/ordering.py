"""The order in which the codes of an image are predicted, and how many at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stage2_prior.grids import dtype_of


def random_orders(batch: int, num_codes: int, device: torch.device | None = None) -> Tensor:
    """Samples a uniformly random order per image from torch's global stream: int64 (B, L)."""
    return torch.rand(batch, num_codes, device=device).argsort(dim=1)


def inverse_order(order: Tensor) -> Tensor:
    """Computes the turn of each position, int64 (B, L), from the order int64 (B, L)."""
    return order.argsort(dim=1)


def known_first(order: Tensor, known: Tensor) -> Tensor:
    """Moves the positions that are known, bool (B, L), to the front of an order, int64 (B, L).

    Known and unknown ones each keep their order.
    """
    waits = (~known).gather(1, order).to(torch.uint8)
    return order.gather(1, waits.argsort(dim=1, stable=True))


def check_order(order: Tensor, batch: int, num_codes: int) -> Tensor:
    """Checks that an order is a permutation and expands it to int64 (B, L).

    Args:
        order: int64 (L,) for all images, or (B, L): the positions of the sequence (grid after
            grid, each in raster order) in the order in which they are predicted.
        batch: B.
        num_codes: L.

    Raises:
        TypeError: It is not of integers.
        ValueError: It has another shape, or does not name every position once.
    """
    dtype = dtype_of(order)
    if dtype not in (torch.int64, torch.int32):
        raise TypeError(f"order must be an int64 tensor, got {dtype}: convert it with .long()")
    if order.shape not in ((num_codes,), (batch, num_codes)):
        raise ValueError(
            f"order must have shape ({num_codes},) or ({batch}, {num_codes}), "
            f"got {tuple(order.shape)}"
        )
    order = order.long().expand(batch, num_codes)
    if not torch.all(order.sort(dim=1).values == torch.arange(num_codes).to(order)):
        raise ValueError(
            f"order must name every position from 0 to {num_codes - 1} exactly once per image"
        )
    return order


def step_sizes(num_unknown: int, num_steps: int | None) -> list[int]:
    """Computes how many codes each step of parallel decoding samples; they sum to `num_unknown`.

    After step i of T, cos(pi/2 * i/T) of the codes are still unknown (Chang et al. 2022, "MaskGIT",
    section 3.3), but each step samples at least one code: few at first, when little is known.

    Args:
        num_unknown: Codes to sample.
        num_steps: T; None, or more than there are codes, samples one by one.
    """
    if num_steps is None or num_steps >= num_unknown:
        return [1] * num_unknown
    sizes, left = [], num_unknown
    for step in range(1, num_steps + 1):
        wanted = round(num_unknown * math.cos(math.pi / 2 * step / num_steps))
        still_unknown = max(num_steps - step, min(left - 1, wanted))
        sizes.append(left - still_unknown)
        left = still_unknown
    return sizes
