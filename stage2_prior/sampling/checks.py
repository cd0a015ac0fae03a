"""What may be asked of a prior: each function gives what was meant, or says what does not fit."""

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

from stage2_prior.config import PriorConfig, SamplingSettings
from stage2_prior.grids import GridSpec, check_codes, to_sequence
from stage2_prior.sampling.compilation import can_compile

# Compiling takes 10 to 20 s the first time, and then saves about a millisecond per 49 codes.
_DRAWS_WORTH_COMPILING = 500_000
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

Labels: TypeAlias = Tensor | NDArray[np.integer] | Sequence[int] | int
"""One label per sample, integers (count,), or one for all."""


def check_numbers(
    count: SupportsIndex, seed: SupportsIndex, first_index: SupportsIndex, batch_size: SupportsIndex
) -> tuple[int, int, int, int]:
    """The four as plain integers, by which samples are counted and random numbers addressed.

    Raises:
        TypeError: A number is no integer.
        ValueError: A number is out of range.
    """
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
    has_sampler_options: bool,
) -> None:
    """Makes sure that a prior can draw in this way.

    Args:
        settings: How to draw.
        config: The prior's.
        num_classes: The prior's.
        labelled: Whether labels are named.
        has_sampler_options: Whether the prior lets precision and compilation be chosen.

    Raises:
        ValueError: There is nothing to guide towards or away from, the prior has one way to
            compute, or the settings exclude each other.
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
    if settings.precision == "bfloat16" and not has_sampler_options:
        raise ValueError(
            f"precision bfloat16 needs a transformer prior, this one is a {config.kind}: "
            "keep it at float32"
        )
    if settings.compile == "on" and settings.num_steps is not None:
        raise ValueError(
            "compile on compiles the step that draws one code, which num_steps "
            f"{settings.num_steps} does without: leave one of them out"
        )
    if settings.compile == "on" and not has_sampler_options:
        raise ValueError(
            f"compile on needs a transformer prior, this one is a {config.kind}: keep it off"
        )


def decide_compilation(
    settings: SamplingSettings, num_draws: int, device: torch.device, *, possible: bool
) -> SamplingSettings:
    """`settings` with `compile` on or off.

    Args:
        settings: How to draw.
        num_draws: How many codes will be drawn.
        device: Where.
        possible: Whether the prior has a step to compile.

    Raises:
        RuntimeError: It is to be compiled, but what that needs is missing.
    """
    if settings.compile == "on":
        if not can_compile(device):
            raise RuntimeError(
                f"compile on needs a C++ compiler (or Triton on a GPU) that works, but none does "
                f"for {device}: install one, or keep it off"
            )
        return settings
    pays = possible and settings.num_steps is None and num_draws >= _DRAWS_WORTH_COMPILING
    compiles = settings.compile == "auto" and pays and can_compile(device)
    return replace(settings, compile="on" if compiles else "off")


def check_null_is_trained(config: PriorConfig, num_classes: int | None) -> None:
    """Makes sure that a prior with classes was trained to go without labels too.

    Raises:
        ValueError: It was not.
    """
    if num_classes is not None and not config.label_dropout:
        raise ValueError(
            "going without labels or using a guidance scale needs a prior trained with "
            "label_dropout above 0, got 0: name labels and keep guidance_scale at 1"
        )


def check_any_order(any_order: bool, wanted: str) -> None:
    """Makes sure that a prior knows other orders than its own, which `wanted` needs.

    Raises:
        ValueError: It does not.
    """
    if not any_order:
        raise ValueError(
            f"{wanted} needs a prior that was trained in any order, this one knows a single "
            "order: train a transformer with any_order (--prior.any-order)"
        )


def as_labels(labels: Labels, count: int) -> Tensor:
    """Labels in any form as int64 (count,).

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
    """Labels int64 (count,) as the network takes them: one past the classes stands for none.

    Raises:
        TypeError: They are not integers.
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


def check_has_context(given: bool, grids: tuple[GridSpec, ...]) -> None:
    """Makes sure that a prior gets a context just where it has context grids.

    Raises:
        ValueError: One is given or missing where the prior was trained otherwise.
    """
    if given and not grids:
        raise ValueError("this prior was trained without context: leave context out")
    if grids and not given:
        raise ValueError(
            f"this prior was trained with {len(grids)} context grids, got none: "
            "name the codes that it is to go by"
        )


def context_sequence(
    context: tuple[Tensor, ...] | None, count: int, grids: tuple[GridSpec, ...]
) -> Tensor | None:
    """The context grids as one sequence int64 (count, Lc), or None for a prior without.

    Args:
        context: int64 (count, h_i, w_i) per context grid, or None.
        count: How many images.
        grids: The prior's context grids; none for a prior without.

    Raises:
        TypeError: They are not integers.
        ValueError: They do not fit, or are given or missing where the prior was trained otherwise.
    """
    check_has_context(context is not None, grids)
    if context is None:
        return None
    check_codes(context, grids, name="context")
    if len(context[0]) != count:
        raise ValueError(f"context must have {count} rows, got {len(context[0])}")
    return to_sequence(context).long()
