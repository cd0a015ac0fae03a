"""Whether a training overfits, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from pipelines.runs.config import RunConfig

PhaseName = Literal["vqvae", "prior"]
LATE = 0.8
"""Share of all steps; best weights before it are followed by a time without improvement."""
RISE = 0.01
"""Increase on the validation split since the best weights, as a share, that is not chance."""
GAP = 0.15
"""Difference of unseen and training images, as a share of the former, that is worth acting on."""
MONITORS: dict[PhaseName, str] = {"vqvae": "loss", "prior": "bits_per_code"}
"""The validation metric by which each stage keeps its best weights; lower is better. The same
metric of training images has `train_` before its name."""
_PHRASES: dict[PhaseName, str] = {
    "vqvae": "a reconstruction loss of {:.4g}",
    "prior": "{:.4g} bits per code",
}
_MORE_DROPOUT, _MOST_DROPOUT = 0.1, 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """What a training minimises, on unseen and on training images, both measured alike.

    Of stage one the reconstruction loss, of the prior the bits per code.
    """

    phase: PhaseName
    """What was trained."""
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
        phase: PhaseName,
        best_step: int,
        best: Mapping[str, float | None],
        step: int,
        last: Mapping[str, float | None],
    ) -> Self | None:
        """Reads the validation metrics of the best and of the last step; None if some are missing.

        A metric that is not finite is None.
        """
        names = (MONITORS[phase], f"train_{MONITORS[phase]}")
        found = [metrics.get(name) for metrics in (best, last) for name in names]
        values = [value for value in found if value is not None]
        if len(values) < len(found):
            return None
        validation, train, last_validation, last_train = values
        return cls(
            phase=phase,
            step=step,
            best_step=best_step,
            validation=validation,
            train=train,
            last_validation=last_validation,
            last_train=last_train,
        )

    @property
    def got_worse(self) -> bool:
        """Whether unseen images got worse well before the end, while training images got better.

        False for a plateau, and for a training that diverges.
        """
        return (
            self.best_step <= LATE * self.step
            and self.last_validation > (1 + RISE) * self.validation
            and self.last_train < self.train
        )

    @property
    def overfits(self) -> bool:
        """Whether the weights that are kept know training images much better than others."""
        return self.got_worse or self.validation - self.train > GAP * self.validation


def verdict(fit: Fit, config: RunConfig) -> str:
    """Returns a sentence on whether a training overfits, and on what to do if it does."""
    gap = (
        f"{_PHRASES[fit.phase].format(fit.validation)} on the validation split against "
        f"{fit.train:.4g} on training images"
    )
    if not fit.overfits:
        return f"no overfitting: {gap}"
    since = (
        f", and the former has not improved since step {fit.best_step:,} of {fit.step:,} "
        f"({fit.last_validation:.4g} against {fit.last_train:.4g} in the end)"
        if fit.got_worse
        else ""
    )
    return f"overfits: {gap}{since}; {remedy(fit.phase, config)}"


def remedy(phase: PhaseName, config: RunConfig) -> str:
    """Names the options that help against overfitting and are not in use yet."""
    options = {"vqvae": _remedies_of_vqvae, "prior": _remedies_of_prior}[phase](config)
    return f"more images help most, then {', '.join(options)}"


def _remedies_of_vqvae(config: RunConfig) -> list[str]:
    options = []
    if not config.vqvae_augmentation.flip:
        options.append("--vqvae-augmentation.flip")
    if config.vqvae_augmentation.crop is None:
        options.append("--vqvae-augmentation.crop")
    return [*options, "fewer --vqvae-training.epochs", "a smaller --vqvae.width"]


def _remedies_of_prior(config: RunConfig) -> list[str]:
    options = []
    if not config.prior_augmentation.flip:
        options.append("--prior-augmentation.flip")
    if not config.prior_augmentation.shift:
        options.append(f"--prior-augmentation.shift {max(1, config.vqvae.downsampling // 2)}")
    dropout = min(config.prior.dropout + _MORE_DROPOUT, _MOST_DROPOUT)
    if dropout > config.prior.dropout:
        options.append(f"--prior.dropout {dropout:g}")
    return [*options, "a smaller --prior.width"]
