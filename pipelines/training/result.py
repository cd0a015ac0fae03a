"""Result of a training."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.training.precision import Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """Result of a training."""

    step: int
    """Optimizer steps done."""
    images_seen: int
    """Training images seen, repetitions included."""
    best_step: int
    """Step whose averaged weights were the best on the validation split; they are kept."""
    best_metrics: dict[str, float]
    """All validation metrics of those weights."""
    last_metrics: dict[str, float]
    """All validation metrics of the last step's averaged weights, which may be worse."""
    seconds: float
    """Training time, without the time between a stop and its resume."""
    precision: Precision
    """The number format it was trained in, and the reason."""
    stopped_early: bool
    """Whether patience ran out before the last epoch."""
