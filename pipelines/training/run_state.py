"""State of a training apart from its tensors, and whether a checkpoint belongs to it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from pipelines.files.records import AnyFloat
from pipelines.training.config import FIELDS_WITHOUT_EFFECT, TrainingConfig
from pipelines.training.device import describe_device
from pipelines.training.distributed import world_size
from pipelines.training.precision import Precision
from pipelines.training.task import Task

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class RunState:
    """Progress of a training and its best validation."""

    step: int = 0
    """Optimizer steps done."""
    seconds: float = 0.0
    """Training time before the last resume."""
    best_step: int = 0
    """Step of the lowest monitored metric; 0 before the first validation."""
    best_metrics: dict[str, AnyFloat] = field(default_factory=dict)
    """All validation metrics of `best_step`."""
    last_metrics: dict[str, AnyFloat] = field(default_factory=dict)
    """All metrics of the newest validation."""
    validations_since_best: int = 0
    """Validations without improvement, in a row."""
    stopped_early: bool = False
    """Whether patience ran out."""

    def __post_init__(self) -> None:
        if min(self.step, self.seconds, self.best_step, self.validations_since_best) < 0:
            raise ValueError(f"steps and seconds must be at least 0, got {self}")
        if self.best_step > self.step or (self.best_step == 0) != (not self.best_metrics):
            raise ValueError(
                f"best_step must be at most step, and 0 without best_metrics, got {self}"
            )

    def judge(self, metrics: Mapping[str, float], monitor: str) -> bool:
        """Records a validation at `step`; returns whether it is the best so far."""
        self.last_metrics = dict(metrics)
        is_best = not self.best_metrics or metrics[monitor] < self.best_metrics[monitor]
        if is_best:
            self.best_step, self.best_metrics = self.step, dict(metrics)
        self.validations_since_best = 0 if is_best else self.validations_since_best + 1
        return is_best


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """Everything that determines the result apart from the weights and the machine."""

    task: str
    """Name of the task."""
    monitor: str
    """The metric that selects the best weights."""
    origin: str
    """Model and data; see `Task.origin`."""
    num_training_examples: int
    """Size of the training split."""
    seed: int
    """Seed of the data order and of all random numbers."""
    settings: TrainingConfig
    """Settings of the training."""

    def __post_init__(self) -> None:
        if self.num_training_examples < 1:
            raise ValueError(
                f"num_training_examples must be at least 1, got {self.num_training_examples}"
            )

    @property
    def deciding(self) -> dict[str, Any]:
        """Returns all values by name, without the settings that do not affect the weights."""
        settings = asdict(self.settings)
        for name in FIELDS_WITHOUT_EFFECT:
            del settings[name]
        others = {name: value for name, value in asdict(self).items() if name != "settings"}
        return settings | others


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """Properties of the machine that the last bits of the result depend on."""

    torch: str
    """Version of torch."""
    device: str
    """Type of the device; for CUDA also the card."""
    threads: int
    """CPU threads of one process."""
    processes: int
    """Number of processes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingState:
    """Everything that a checkpoint holds besides tensors."""

    run: RunState
    """Progress of the training."""
    sums: dict[str, AnyFloat]
    """Sum of each training metric since the last line of the log; see `RunningMeans`."""
    counts: dict[str, int]
    """Number of values in each sum."""
    precision: Precision
    """The number format of the training."""
    fingerprint: Fingerprint
    """The training that it may be resumed by."""
    environment: Environment
    """The machine of the last session."""

    def __post_init__(self) -> None:
        total = self.fingerprint.settings.total_steps(self.fingerprint.num_training_examples)
        if self.run.step > total:
            raise ValueError(f"step must be at most {total}, the last one, got {self.run.step}")
        if self.sums.keys() != self.counts.keys() or min(self.counts.values(), default=1) < 1:
            raise ValueError(f"each of sums must have a count of at least 1, got {self.counts}")
        best = self.run.best_metrics
        if best and not math.isfinite(best.get(self.fingerprint.monitor, math.nan)):
            raise ValueError(
                f"best_metrics must hold a finite {self.fingerprint.monitor}, got {best}"
            )


def fingerprint(task: Task, config: TrainingConfig, seed: int) -> Fingerprint:
    """Returns what determines the result of training `task`."""
    return Fingerprint(
        task=task.name,
        monitor=task.monitor,
        origin=task.origin,
        num_training_examples=task.num_training_examples,
        seed=seed,
        settings=config,
    )


def refuse_other_run(saved: Fingerprint, current: Fingerprint) -> None:
    """Checks that a resumed training is the saved one; an error names the first difference."""
    for name, before in sorted(saved.deciding.items()):
        now = current.deciding[name]
        if before != now:
            raise ValueError(
                f"cannot resume: {name} was {before} when the checkpoint was written and is {now} "
                "now; give the same settings, or start a new run"
            )


def environment(device: torch.device) -> Environment:
    """Returns what the last bits of the result depend on, on this machine."""
    return Environment(
        torch=str(torch.__version__),
        device=describe_device(device),
        threads=torch.get_num_threads(),
        processes=world_size(),
    )


def warn_other_machine(saved: Environment, current: Environment) -> None:
    """Logs a warning if the resumed result will not equal the uninterrupted one exactly."""
    before = asdict(saved)
    for name, now in asdict(current).items():
        if before[name] != now:
            logger.warning(
                "resuming with %s %s instead of %s: the result will not be bit for bit that of an "
                "uninterrupted run",
                name,
                now,
                before[name],
            )
