"""A module's state as a dictionary of tensors, loaded strictly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def state_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Returns every parameter and persistent buffer by name, sharing memory with the module."""
    state = module.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"the state of a trained module must be tensors, got {type(value).__name__} for "
                f"{name!r}: register it as a buffer"
            )
    return dict(state)


def cloned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies `tensors`, in the same memory format."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


@torch.no_grad()
def copy_into(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor], what: str) -> None:
    """Overwrites `targets` with `sources`, keeping the targets' device and memory format.

    Names, shapes and dtypes must be the same: else a ValueError calls the sources `what`, and
    nothing has been written.
    """
    unmatched = sorted(targets.keys() ^ sources.keys())
    if unmatched:
        raise ValueError(
            f"{what} must hold the tensors of this model, but {unmatched[0]!r} (and "
            f"{len(unmatched) - 1} more) is on one side only: it was made with another model"
        )
    for name, target in targets.items():
        source = sources[name]
        if source.shape != target.shape or source.dtype != target.dtype:
            raise ValueError(
                f"{what} must hold {name!r} as {target.dtype} {tuple(target.shape)}, got "
                f"{source.dtype} {tuple(source.shape)}: it was made with another model"
            )
    for name, target in targets.items():
        target.copy_(sources[name])


def first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Returns the name of the first floating-point tensor with a NaN or infinity, or None."""
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    if not floating:
        return None
    # One reading for all tensors: on a GPU each single one would wait for the device.
    finite = torch.stack([tensor.isfinite().all() for tensor in floating.values()]).tolist()
    return next((name for name, ok in zip(floating, finite, strict=True) if not ok), None)
