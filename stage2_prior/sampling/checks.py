"""Validates sampling requests."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Sequence
from dataclasses import replace
from typing import SupportsIndex, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stage2_prior.config import PriorConfig
from stage2_prior.grids import check_codes, dtype_of, to_sequence
from stage2_prior.sampling.compilation import can_compile
from stage2_prior.sampling.settings import SamplingSettings
from stage2_prior.spec import ContextSpec, FeatureSpec

# Compiling takes 10 to 20 s the first time, and then saves about a millisecond per 49 codes.
_CODES_WORTH_COMPILING = 500_000
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

Labels: TypeAlias = Tensor | NDArray[np.integer] | Sequence[int] | int
"""One label per sample, integers (count,), or one for all."""
Context: TypeAlias = tuple[Tensor, ...] | Tensor
"""Code grids int64 (B, h_i, w_i), or features float32 (B, Lc, D)."""


def check_numbers(
    count: SupportsIndex, seed: SupportsIndex, first_index: SupportsIndex, batch_size: SupportsIndex
) -> tuple[int, int, int, int]:
    """Converts the four numbers to plain integers; raises an error where they cannot be used."""
    numbers = {"count": count, "seed": seed, "first_index": first_index, "batch_size": batch_size}
    for name, number in numbers.items():
        if not isinstance(number, SupportsIndex):
            raise TypeError(f"{name} must be an integer, got {reprlib.repr(number)}")
    count, seed, first_index, batch_size = map(operator.index, numbers.values())
    if count < 1 or batch_size < 1:
        raise ValueError(
            f"at least one sample and a batch_size of at least 1 are required, got {count} and "
            f"{batch_size}"
        )
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"seed must be in [0, 2^63), got {seed}")
    if not 0 <= first_index < (1 << 63) - count:
        raise ValueError(f"first_index must be in [0, 2^63 - count), got {first_index}")
    return count, seed, first_index, batch_size


def check_settings(
    settings: SamplingSettings,
    config: PriorConfig,
    num_classes: int | None,
    *,
    labelled: bool,
    has_options: bool,
) -> None:
    """Checks that a prior can sample with these settings, with or without labels.

    `has_options` says whether the prior supports `precision` and `compile`.

    Raises:
        ValueError: There is nothing to guide towards or away from, or as `check_computation`.
    """
    if settings.guided:
        if num_classes is None:
            raise ValueError(
                f"guidance_scale {settings.guidance_scale} needs a prior trained with labels, this "
                "one was trained without: leave guidance out"
            )
        if not labelled:
            raise ValueError(
                f"guidance_scale {settings.guidance_scale} needs labels to guide towards: "
                "name labels or leave guidance out"
            )
        check_null_is_trained(config, num_classes)
    check_computation(settings, config, possible=has_options)


def check_computation(settings: SamplingSettings, config: PriorConfig, *, possible: bool) -> None:
    """Checks that a prior supports the precision and compilation of these settings.

    Raises:
        ValueError: The prior has one way to compute, or the settings exclude each other.
    """
    if settings.precision == "bfloat16" and not possible:
        raise ValueError(
            f"precision bfloat16 needs a transformer prior, this one is a {config.kind}: "
            "keep it at float32"
        )
    if settings.compile == "on" and settings.num_steps is not None:
        raise ValueError(
            "compile on compiles the step that samples one code, which num_steps "
            f"{settings.num_steps} does without: leave one of them out"
        )
    if settings.compile == "on" and not possible:
        raise ValueError(
            f"compile on needs a transformer prior, this one is a {config.kind}: keep it off"
        )


def decide_compilation(
    settings: SamplingSettings, num_codes: int, device: torch.device, *, possible: bool
) -> SamplingSettings:
    """Decides `compile="auto"`: on where the prior supports it, it works and it pays, else off.

    Raises:
        RuntimeError: `compile` is on, and nothing can be compiled on this device.
    """
    if settings.compile == "on":
        if not can_compile(device):
            raise RuntimeError(
                f"compile on needs a C++ compiler (or Triton on a GPU) that works, but none does "
                f"for {device}: install one, or keep it off"
            )
        return settings
    pays = possible and settings.num_steps is None and num_codes >= _CODES_WORTH_COMPILING
    compiles = settings.compile == "auto" and pays and can_compile(device)
    return replace(settings, compile="on" if compiles else "off")


def check_null_is_trained(config: PriorConfig, num_classes: int | None) -> None:
    """Raises a ValueError unless a prior with classes was trained with dropped labels."""
    if num_classes is not None and not config.label_dropout:
        raise ValueError(
            "going without labels or using a guidance scale needs a prior trained with "
            "label_dropout above 0, got 0: name labels and keep guidance_scale at 1"
        )


def check_any_order(any_order: bool, wanted: str) -> None:
    """Raises a ValueError unless a prior can predict codes in any order, which `wanted` needs."""
    if not any_order:
        raise ValueError(
            f"{wanted} needs a prior that was trained in any order, this one knows a single "
            "order: train a transformer with any_order (--prior.any-order)"
        )


def as_labels(labels: Labels, count: int) -> Tensor:
    """Converts labels to int64 (count,).

    Raises:
        TypeError: They are not integers.
        ValueError: They are not as many.
    """
    try:
        tensor = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(
            f"labels must be one integer, or one per sample, got {reprlib.repr(labels)}: name "
            "classes by their numbers"
        ) from error
    if tensor.dtype not in _INTEGERS:
        raise TypeError(f"labels must be int64, got {tensor.dtype}: convert them with .long()")
    if tensor.ndim == 0:
        tensor = tensor.expand(count)
    if tensor.shape != (count,):
        raise ValueError(f"labels must have shape ({count},), got {tuple(tensor.shape)}")
    return tensor.long()


def labels_or_null(
    labels: Labels | None, count: int, config: PriorConfig, num_classes: int | None
) -> Tensor:
    """Converts labels to int64 (count,), `num_classes` for no label.

    Raises:
        ValueError: They do not fit the prior, or it was not trained to go without.
    """
    if labels is None:
        check_null_is_trained(config, num_classes)
        return torch.full((count,), num_classes or 0)
    if num_classes is None:
        raise ValueError("this prior was trained without labels: leave labels out")
    labels = as_labels(labels, count)
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(
            f"labels must be in [0, {num_classes}), got {int(labels.min())} to {int(labels.max())}"
        )
    return labels


def check_has_context(given: bool, spec: ContextSpec) -> None:
    """Raises a ValueError unless a context is given if and only if the prior has one."""
    if given and not spec:
        raise ValueError("this prior was trained without context: leave context out")
    if spec and not given:
        required = f"{spec}" if isinstance(spec, FeatureSpec) else f"{len(spec)} context grids"
        raise ValueError(f"this prior was trained with {required}, got none: give its context")


def context_tensor(context: Context | None, count: int, spec: ContextSpec) -> Tensor | None:
    """Converts a context of `count` images to int64 (count, Lc) or float (count, Lc, D).

    Raises:
        TypeError: It has a wrong dtype.
        ValueError: It does not fit, is missing, or is given to a prior without.
    """
    check_has_context(context is not None, spec)
    if context is None:
        return None
    if isinstance(spec, FeatureSpec):
        return _checked_features(context, count, spec)
    if isinstance(context, Tensor):
        raise TypeError(f"context must be a tuple of {len(spec)} code grids, got a tensor")
    check_codes(context, spec, name="context")
    if len(context[0]) != count:
        raise ValueError(f"context must have {count} rows, got {len(context[0])}")
    return to_sequence(context).long()


def _checked_features(context: Context, count: int, spec: FeatureSpec) -> Tensor:
    if not isinstance(context, Tensor) or not context.is_floating_point():
        raise TypeError(
            f"context must be a float tensor (B, Lc, D) for this prior, got {dtype_of(context)}"
        )
    expected = (count, spec.num_positions, spec.dim)
    if context.shape != expected:
        raise ValueError(f"context must have shape {expected}, got {tuple(context.shape)}")
    return context
