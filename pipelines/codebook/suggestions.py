"""Suggestions of option changes, if the run's quantizer has the option and accepts the value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.quantizers.config import QuantizerConfig

_MAX_CHANGES = 3  # per suggestion


@dataclass(frozen=True, slots=True)
class Change:
    """A possible change of one option of a quantizer."""

    option: str
    """A field of the quantizer's config, or of its base's."""
    to: Callable[[Any, Any], Any]
    """The new value, from the present one and the default; the present one for no change."""
    why: str
    """The effect of the change."""
    also: Mapping[str, Any] = field(default_factory=dict)
    """Other fields that must change with it."""
    kinds: tuple[str, ...] = ()
    """Kinds of quantizers that it helps; empty for all with the option."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A suggestion as a sentence, and the options in it."""

    sentence: str
    """What to change, to what, and why; options as on the command line."""
    options: tuple[str, ...]
    """E.g. ("--vqvae.quantizer.kmeans-batches",)."""


RESTART_CODES = (
    Change("restart_threshold", lambda now, _: now or 0.03, "dead codes restart at z_e"),
    Change("kmeans_batches", lambda now, _: now or 8, "all codes start at z_e"),
    Change("restart_until", max, "codes that die late restart too"),
)
"""Changes for codes far from all z_e."""

USE_MORE_CODES = (
    Change(
        "codebook_dim",
        lambda now, default: default if now > 2 * default else now,
        "all codes of a large codebook stay in use only in few dimensions",
    ),
    Change("commitment_weight", max, "z_e cannot grow away from the codes"),
    Change("diversity_weight", lambda now, _: 2 * now or 0.03, "all codes are kept in use"),
    Change("kl_weight", lambda now, _: 10 * now or 1e-3, "more codes stay in use"),
    Change("entropy_weight", lambda now, _: 2 * now or 0.005, "varied codes are rewarded"),
    Change(
        "online_clustering",
        lambda _, __: True,
        "every unused code moves towards z_e at every step",
        also={"restart_threshold": 0.0},
    ),
    Change("cosine", lambda _, __: True, "no code can lie too far out to be chosen"),
)
"""Changes for codebooks of which few codes are used."""

FOLLOW_Z_E = (
    Change(
        "commitment_weight",
        lambda now, default: default if now < default else 2 * now,
        "z_e are pulled to their codes more strongly",
    ),
    Change("kmeans_batches", lambda now, _: now or 8, "all codes start at z_e"),
    Change("decay", min, "codes follow their z_e faster", kinds=("ema",)),
    Change(
        "codebook_weight", lambda now, _: 2 * now, "codes are pulled to their z_e more strongly"
    ),
    Change(
        "kl_weight",
        lambda now, _: 10 * now or 1e-3,
        "distance between z_e and codes costs more",
        kinds=("stochastic",),
    ),
    Change("cosine", lambda _, __: True, "lengths can no longer drift"),
    Change("spherical", lambda _, __: True, "lengths can no longer drift"),
)
"""Changes for codes that lag behind their z_e."""

SEPARATE_CODES = (
    Change("restart_until", min, "the last restarted codes have time to separate"),
    Change("entropy_weight", lambda now, _: 2 * now or 0.005, "varied codes are rewarded"),
)
"""Changes for duplicate codes."""


def refine(codebook_size: int) -> tuple[Change, ...]:
    """Returns changes for a large quantization error."""
    return (
        Change(
            "codebook_dim",
            lambda now, default: min(now, default),
            "the same number of codes fills fewer dimensions more densely",
        ),
        Change("num_quantizers", lambda now, _: now + 1, "one more grid quantizes the residual"),
        Change("codebook_size", lambda _, __: 4 * codebook_size, "more codes are nearer"),
    )


def shrink(codebook_size: int) -> Change:
    """Returns the change to a smaller codebook of `codebook_size`."""
    return Change(
        "codebook_size",
        lambda now, _: min(now, codebook_size),
        "no bits are spent on codes without use",
    )


def power_of_two_above(number: float) -> int:
    """Returns the smallest power of two, 2 or more, that is at least `number`."""
    return max(2, 1 << (math.ceil(number) - 1).bit_length())


def power_of_two_below(number: float) -> int:
    """Returns the largest power of two that is at most `number`, but at least 2."""
    return max(2, 1 << (math.floor(number).bit_length() - 1)) if number >= 1 else 2


def suggest(config: VQVAEConfig, possible: Sequence[Change]) -> Suggestion:
    """Suggests the first few changes that the quantizer accepts, or another kind of quantizer."""
    found = [s for change in possible if (s := _apply(config.quantizer, change))][:_MAX_CHANGES]
    if not found:
        other = "ema" if config.quantizer.kind != "ema" else "finite_scalar"
        option = "--vqvae.quantizer.kind"
        return Suggestion(
            f"try {option} {other}, since {config.quantizer.kind} has no option left to change",
            (option,),
        )
    return Suggestion(
        "; if that is not enough, ".join(suggestion.sentence for suggestion in found),
        tuple(option for suggestion in found for option in suggestion.options),
    )


def _apply(config: QuantizerConfig, change: Change) -> Suggestion | None:
    """Returns the change as a suggestion, or None if the quantizer does not accept it."""
    base: Any = getattr(config, "base", None)
    # A quantizer that wraps others has most options in its base.
    owner: Any = base if base is not None and _has(base, change.option) else config
    if not all(_has(owner, name) for name in (change.option, *change.also)):
        return None
    if change.kinds and owner.kind not in change.kinds:
        return None
    now = getattr(owner, change.option)
    default = next(f.default for f in fields(owner) if f.name == change.option)
    values = {change.option: change.to(now, default), **change.also}
    if values[change.option] == now:
        return None
    try:
        changed = replace(owner, **values)
        if owner is base:
            replace(config, base=changed)
    except ValueError:  # the options exclude each other
        return None
    prefix = "--vqvae.quantizer.base." if owner is base else "--vqvae.quantizer."
    sentences, options = [], []
    for name, value in values.items():
        if value == (now := getattr(owner, name)):
            continue
        options.append(prefix + name.replace("_", "-"))
        sentences.append(
            f"switch on {options[-1]}"
            if value is True
            else f"set {options[-1]} to {_text(value)} (now {_text(now)})"
        )
    return Suggestion(f"{' and '.join(sentences)}, so that {change.why}", tuple(options))


def _text(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _has(config: Any, name: str) -> bool:
    return name in {f.name for f in fields(config)}
