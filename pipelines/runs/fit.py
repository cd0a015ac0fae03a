"""One training of a run, from its first step to its metrics on the test split."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pipelines.runs.directory import RunDirectory
from pipelines.runs.messages import say_training
from pipelines.training.config import TrainingConfig
from pipelines.training.distributed import is_main
from pipelines.training.metrics_log import MetricsLog, MetricsRow
from pipelines.training.progress import progress_for
from pipelines.training.result import TrainingResult
from pipelines.training.task import Task
from pipelines.training.trainer import Trainer


def fit(
    task: Task,
    training: TrainingConfig,
    directory: RunDirectory,
    measure: Callable[[], dict[str, float]],
    *,
    seed: int,
    device: torch.device,
    resume: bool,
) -> TrainingResult:
    """Trains a task and measures it on the test split; logs and prints both.

    `measure` computes the test metrics of the finished model.
    """
    metrics = MetricsLog(directory.metrics, directory.tensorboard)
    trainer = Trainer(
        task,
        training,
        checkpoint_dir=directory.checkpoints / task.name,
        metrics=metrics,
        device=device,
        seed=seed,
        progress=progress_for(),
    )
    result = trainer.fit(resume=resume)
    values = measure()
    if is_main():
        metrics.write(
            MetricsRow(
                phase=task.name,
                kind="test",
                step=result.step,
                images_seen=result.images_seen,
                seconds=result.seconds,
                values=values,
            )
        )
    say_training(task.name, result, values)
    return result
