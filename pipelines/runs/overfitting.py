"""Whether a prior overfits, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from pipelines.runs.config import RunConfig

LATE = 0.8
"""Share of all steps; best weights before it mean that the validation split got worse since."""
GAP = 0.15
"""Difference of unseen and training images, as a share of the former, that is worth acting on."""
_METRICS = ("bits_per_code", "train_bits_per_code")
_MORE_DROPOUT, _MOST_DROPOUT = 0.1, 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorFit:
    """Bits per code of a training on unseen and on training images, both measured alike."""

    step: int
    """Last optimizer step."""
    best_step: int
    """Step whose weights were the best on the validation split; they are kept."""
    validation: float
    """Of the best weights, on the validation split."""
    train: float
    """Of the best weights, on as many training images."""
    last_validation: float
    """Of the last weights, on the validation split."""
    last_train: float
    """Of the last weights, on training images."""

    @classmethod
    def of(
        cls,
        best_step: int,
        best: Mapping[str, float | None],
        step: int,
        last: Mapping[str, float | None],
    ) -> Self | None:
        """Reads the validation metrics of the best and of the last step; None if some are missing.

        A metric that is not finite is None.
        """
        values = [metrics.get(name) for metrics in (best, last) for name in _METRICS]
        if None in values:
            return None
        validation, train, last_validation, last_train = (value or 0.0 for value in values)
        return cls(
            step=step,
            best_step=best_step,
            validation=validation,
            train=train,
            last_validation=last_validation,
            last_train=last_train,
        )

    @property
    def got_worse(self) -> bool:
        """Whether the validation split got worse well before the end."""
        return self.best_step <= LATE * self.step and self.last_validation > self.validation

    @property
    def overfits(self) -> bool:
        """Whether the weights that are kept know training images much better than others."""
        return self.got_worse or self.validation - self.train > GAP * self.validation


def verdict(fit: PriorFit, config: RunConfig) -> str:
    """Returns a sentence on whether the prior overfits, and on what to do if it does."""
    gap = (
        f"{fit.validation:.4g} bits per code on the validation split against {fit.train:.4g} on "
        "training images"
    )
    if not fit.overfits:
        return f"no overfitting: {gap}"
    since = (
        f", and since step {fit.best_step:,} of {fit.step:,} it only gets worse "
        f"({fit.last_validation:.4g} against {fit.last_train:.4g} in the end)"
        if fit.got_worse
        else ""
    )
    return f"overfits: {gap}{since}; {remedy(config)}"


def remedy(config: RunConfig) -> str:
    """Names the options that help against overfitting and are not in use yet."""
    options = []
    if not config.prior_augmentation.flip:
        options.append("--prior-augmentation.flip")
    if not config.prior_augmentation.shift:
        options.append(f"--prior-augmentation.shift {max(1, config.vqvae.downsampling // 2)}")
    dropout = min(config.prior.dropout + _MORE_DROPOUT, _MOST_DROPOUT)
    if dropout > config.prior.dropout:
        options.append(f"--prior.dropout {dropout:g}")
    options.append("a smaller --prior.width")
    return f"more images help most, then {', '.join(options)}"
