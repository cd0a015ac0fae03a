"""Where a training stands, and whether a checkpoint belongs to it."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from pipelines.training.config import TrainingConfig
from pipelines.training.distributed import world_size
from pipelines.training.task import Task

logger = logging.getLogger(__name__)

_FIELDS_WITHOUT_EFFECT = ("checkpoint_every", "log_every")
"""Settings that may change between a stop and its resume: the weights do not depend on them."""


@dataclass(kw_only=True, slots=True)
class RunState:
    """The bookkeeping of one training; everything else a checkpoint holds is tensors."""

    step: int = 0
    """Optimizer steps done."""

    seconds: float = 0.0
    """Training time before the last resume."""

    best_step: int = 0
    """Step of the lowest monitored figure; 0 before the first validation."""

    best_metrics: dict[str, float] = field(default_factory=dict)
    """All validation figures of `best_step`."""

    last_metrics: dict[str, float] = field(default_factory=dict)
    """All figures of the newest validation."""

    validations_since_best: int = 0
    """Validations that brought no improvement, in a row."""

    stopped_early: bool = False
    """Whether patience ran out."""

    def judge(self, metrics: Mapping[str, float], monitor: str) -> bool:
        """Takes note of a validation at `step` and says whether it is the best so far."""
        self.last_metrics = dict(metrics)
        is_best = not self.best_metrics or metrics[monitor] < self.best_metrics[monitor]
        if is_best:
            self.best_step, self.best_metrics = self.step, dict(metrics)
        self.validations_since_best = 0 if is_best else self.validations_since_best + 1
        return is_best


def fingerprint(task: Task, config: TrainingConfig, seed: int) -> dict[str, Any]:
    """Everything that decides the result apart from the model and the machine, as JSON holds it."""
    settings = dataclasses.asdict(config)
    for name in _FIELDS_WITHOUT_EFFECT:
        del settings[name]
    settings |= {"seed": seed, "task": task.name, "monitor": task.monitor}
    settings["num_training_examples"] = task.num_training_examples
    normalised: dict[str, Any] = json.loads(json.dumps(settings))  # tuples become lists
    return normalised


def refuse_other_run(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Refuses to continue a run with settings that would make it another one.

    Raises:
        ValueError: If any setting differs; the message names the first.
    """
    for name in sorted(saved.keys() | current.keys()):
        before, now = saved.get(name), current.get(name)
        if before != now:
            raise ValueError(
                f"cannot resume: {name} was {before} when the checkpoint was written and is {now} "
                "now; give the same settings, or start a new run"
            )


def environment(device: torch.device) -> dict[str, Any]:
    """What of the machine the last bits of the result depend on."""
    return {
        "torch": torch.__version__,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "processes": world_size(),
    }


def warn_other_machine(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Logs a warning where the resumed result will be close to the uninterrupted one only."""
    for name, now in current.items():
        before = saved.get(name)
        if before != now:
            logger.warning(
                "resuming with %s %s instead of %s: the result will not be bit for bit that of an "
                "uninterrupted run",
                name,
                now,
                before,
            )
