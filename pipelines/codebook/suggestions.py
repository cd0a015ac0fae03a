"""Which option to change against what is wrong with a codebook.

A remedy is named only if the run's quantizer has the option and if its config can be built with the
new value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.quantizers.config import QuantizerConfig

# More remedies than this at once are no advice.
_MOST = 3


@dataclass(frozen=True, slots=True)
class Remedy:
    """One option of a quantizer and the value it should take."""

    option: str
    """A field of the quantizer's config, or of its base's."""
    to: Callable[[Any, Any], Any]
    """The new value, from the present one and the default; the present one for no change."""
    why: str
    """What the change does."""
    also: Mapping[str, Any] = field(default_factory=dict)
    """Other fields that have to change with it."""
    kinds: tuple[str, ...] = ()
    """Kinds of quantizers it helps; empty for all that have the option."""


@dataclass(frozen=True, slots=True)
class Cure:
    """A sentence and the options it names."""

    sentence: str
    """What to change, to what, and why; the options as they are written on the command line."""
    options: tuple[str, ...]
    """E.g. ("--vqvae.quantizer.kmeans-batches",)."""


RESTART = (
    Remedy("restart_threshold", lambda now, _: now or 0.03, "dead codes restart where z_e are"),
    Remedy("kmeans_batches", lambda now, _: now or 8, "all codes start where z_e are"),
    Remedy("restart_until", max, "codes that die late restart too"),
)
"""Against codes that are where no z_e are."""

VARY = (
    Remedy(
        "codebook_dim",
        lambda now, default: default if now > 2 * default else now,
        "a whole codebook stays in use in few dimensions only",
    ),
    Remedy("commitment_weight", max, "z_e cannot run away from the codes"),
    Remedy("diversity_weight", lambda now, _: 2 * now or 0.03, "all codes are kept in use"),
    Remedy("kl_weight", lambda now, _: 10 * now or 1e-3, "more codes stay in play"),
    Remedy("entropy_weight", lambda now, _: 2 * now or 0.005, "varied codes are rewarded"),
    Remedy(
        "online_clustering",
        lambda _, __: True,
        "every unused code is drawn to z_e at every step",
        also={"restart_threshold": 0.0},
    ),
    Remedy("cosine", lambda _, __: True, "no code can lie too far out to be chosen"),
)
"""Against few codes being chosen at all."""

APPROACH = (
    Remedy(
        "commitment_weight",
        lambda now, default: default if now < default else 2 * now,
        "z_e are pulled to their codes more strongly",
    ),
    Remedy("kmeans_batches", lambda now, _: now or 8, "all codes start where z_e are"),
    Remedy("decay", min, "codes follow their z_e faster", kinds=("ema",)),
    Remedy(
        "codebook_weight", lambda now, _: 2 * now, "codes are pulled to their z_e more strongly"
    ),
    Remedy(
        "kl_weight",
        lambda now, _: 10 * now or 1e-3,
        "distance between z_e and codes costs more",
        kinds=("stochastic",),
    ),
    Remedy("cosine", lambda _, __: True, "lengths can no longer drift"),
    Remedy("spherical", lambda _, __: True, "lengths can no longer drift"),
)
"""Against codes that lie beside the z_e that choose them."""

PART = (
    Remedy("restart_until", min, "codes restarted last have time to part"),
    Remedy("entropy_weight", lambda now, _: 2 * now or 0.005, "varied codes are rewarded"),
)
"""Against codes that say the same."""


def refine(codebook_size: int) -> tuple[Remedy, ...]:
    """Against too large a quantization error."""
    return (
        Remedy(
            "codebook_dim",
            lambda now, default: min(now, default),
            "the same number of codes fills fewer dimensions more densely",
        ),
        Remedy("num_quantizers", lambda now, _: now + 1, "one more grid quantizes what is left"),
        Remedy("codebook_size", lambda _, __: 4 * codebook_size, "more codes are nearer"),
    )


def shrink(codebook_size: int) -> Remedy:
    """Against codes without use: a codebook of `codebook_size`, if that is fewer."""
    return Remedy(
        "codebook_size",
        lambda now, _: min(now, codebook_size),
        "no bits are spent on codes without use",
    )


def power_of_two_above(number: float) -> int:
    """The smallest power of two, 2 or more, that is at least `number`."""
    return max(2, 1 << (math.ceil(number) - 1).bit_length())


def power_of_two_below(number: float) -> int:
    """The largest power of two that is at most `number`, but at least 2."""
    return max(2, 1 << (math.floor(number).bit_length() - 1)) if number >= 1 else 2


def prescribe(config: VQVAEConfig, remedies: tuple[Remedy, ...]) -> Cure:
    """The first few of `remedies` that this quantizer can take, or another kind of quantizer."""
    found = [p for p in (_apply(config.quantizer, remedy) for remedy in remedies) if p][:_MOST]
    if not found:
        other = "ema" if config.quantizer.kind != "ema" else "finite_scalar"
        option = "--vqvae.quantizer.kind"
        return Cure(
            f"try {option} {other}, since {config.quantizer.kind} has no option that is left to "
            "change",
            (option,),
        )
    return Cure(
        "; if that is not enough, ".join(cure.sentence for cure in found),
        tuple(option for cure in found for option in cure.options),
    )


def _apply(config: QuantizerConfig, remedy: Remedy) -> Cure | None:
    """The remedy in words, or None where it does not fit."""
    base: Any = getattr(config, "base", None)
    # A quantizer that wraps others has most options in its base.
    owner: Any = base if base is not None and _has(base, remedy.option) else config
    if not all(_has(owner, name) for name in (remedy.option, *remedy.also)):
        return None
    if remedy.kinds and owner.kind not in remedy.kinds:
        return None
    now = getattr(owner, remedy.option)
    default = next(f.default for f in fields(owner) if f.name == remedy.option)
    changes = {remedy.option: remedy.to(now, default), **remedy.also}
    if changes[remedy.option] == now:
        return None
    try:
        changed = replace(owner, **changes)
        if owner is base:
            replace(config, base=changed)
    except ValueError:  # the options exclude each other
        return None
    prefix = "--vqvae.quantizer.base." if owner is base else "--vqvae.quantizer."
    different = {name: value for name, value in changes.items() if value != getattr(owner, name)}
    options = {name: prefix + name.replace("_", "-") for name in different}
    words = [
        f"switch on {options[name]}"
        if value is True
        else f"set {options[name]} to {_number(value)} (now {_number(getattr(owner, name))})"
        for name, value in different.items()
    ]
    return Cure(f"{' and '.join(words)}, so that {remedy.why}", tuple(options.values()))


def _has(config: Any, name: str) -> bool:
    return name in {f.name for f in fields(config)}


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
