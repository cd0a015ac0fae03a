"""The training loop of both stages."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pipelines.training.checkpoint import Checkpoint, CheckpointStore
from pipelines.training.config import TrainingConfig
from pipelines.training.device import deterministic_algorithms
from pipelines.training.distributed import (
    agree,
    broadcast_from_main,
    is_main,
    mean_metrics,
    on_main,
)
from pipelines.training.metrics_log import MetricsLog, MetricsRow
from pipelines.training.precision import Precision, resolve_precision
from pipelines.training.progress import Progress
from pipelines.training.randomness import derive_seed
from pipelines.training.result import TrainingResult
from pipelines.training.run_state import (
    RunState,
    TrainingState,
    environment,
    fingerprint,
    refuse_other_run,
    warn_other_machine,
)
from pipelines.training.state_tensors import cloned, copy_into, first_non_finite, state_tensors
from pipelines.training.task import Task
from pipelines.training.train_step import TrainStep


class Trainer:
    """Trains a task's objective and leaves its best averaged weights in it.

    Interrupted at any moment and called again with `resume=True`, `fit` ends bit for bit as it
    would have without the interruption, on the same machine with as many threads: the examples and
    the random numbers of a step are functions of (seed, step), and everything else is in the
    checkpoint. On CUDA it uses deterministic algorithms for that.

        trainer = Trainer(task, TrainingConfig(epochs=10), checkpoint_dir=run / "checkpoints",
                          metrics=MetricsLog(run / "metrics.jsonl"),
                          device=choose_device("auto"), seed=0)
        result = trainer.fit(resume=False)

    Under torchrun (inside `distributed.process_group`) every process calls `fit`; each takes its
    share of every batch, and rank 0 writes the files. All processes read the checkpoints, which
    therefore have to be on a file system that they share.

    Args:
        task: What to train.
        config: Settings of the training.
        checkpoint_dir: Directory of this training's checkpoints alone.
        metrics: Log of the metrics; may be shared with other phases.
        device: Device of the training.
        seed: Same seed, same result. Torch's global random stream is re-seeded from it.
        progress: Display of the progress; None for none.
    """

    def __init__(
        self,
        task: Task,
        config: TrainingConfig,
        *,
        checkpoint_dir: Path,
        metrics: MetricsLog,
        device: torch.device,
        seed: int,
        progress: Progress | None = None,
    ) -> None:
        self.task = task
        self.config = config
        self.metrics = metrics
        self.device = device
        self.seed = seed
        self.progress = progress if progress is not None and is_main() else Progress()
        self._store = CheckpointStore(checkpoint_dir)
        self._fingerprint = fingerprint(task, config, seed)
        self._validation_interval = config.steps_between_validations(task.num_training_examples)

    def fit(self, *, resume: bool) -> TrainingResult:
        """Trains to the end; afterwards `task.objective` holds the best averaged weights.

        With `resume` it continues from the newest checkpoint. Without any checkpoint training
        starts anew: it may have been interrupted before the first.

        Raises:
            FileExistsError: If `resume` is False and there are checkpoints.
            ValueError: If the checkpoint is unreadable, or of other settings or another model.
            RuntimeError: If a loss, a gradient, a weight or the monitored metric is not finite, or
                if a checkpoint cannot be written. The last good checkpoint stays.
        """
        with deterministic_algorithms(self.device):
            self._start(self._find_checkpoint(resume))
            try:
                self._train()
            finally:
                self.progress.close()
                self._train_step.close()
        return self._finish()

    def _train(self) -> None:
        """Makes the steps that are left."""
        while self._state.step < self._train_step.total_steps and not self._state.stopped_early:
            self._train_step.step(self._state.step)
            self._state.step += 1
            self.progress.advance(self.config.batch_size)
            self._after_step()

    def _find_checkpoint(self, resume: bool) -> Checkpoint | None:
        steps = on_main(self._store.steps)
        if not resume and steps:
            raise FileExistsError(
                f"{self._store.directory} holds a checkpoint of step {steps[-1]}: "
                "resume it, or choose another directory for a new run"
            )
        checkpoint = self._store.load_newest()
        agree(
            {"step of the newest checkpoint": checkpoint.step if checkpoint else 0},
            f"put {self._store.directory} on a shared file system",
        )
        if checkpoint is not None:
            refuse_other_run(checkpoint.state.fingerprint, self._fingerprint)
            warn_other_machine(checkpoint.state.environment, environment(self.device))
        return checkpoint

    def _start(self, checkpoint: Checkpoint | None) -> None:
        """Prepares objective, optimizers, log and progress display for the first or next step."""
        objective = self.task.objective.train().to(self.device)
        if checkpoint is None:
            torch.manual_seed(derive_seed(self.seed, self.task.name, "prepare"))
            with torch.no_grad():
                self.task.prepare(self.device)
        if self.device.type != "mps":  # where channels_last kernels are neither fast nor reliable
            # After `prepare`, which may replace weights: on resume they must have the same format.
            objective.to(memory_format=torch.channels_last)
        broadcast_from_main(state_tensors(objective))
        self._state = RunState()
        self._best: dict[str, Tensor] = {}
        self._train_step = TrainStep(
            self.task,
            self.config,
            self.device,
            self._precision(checkpoint),
            self.seed,
            start_step=checkpoint.step if checkpoint else 0,
        )
        if checkpoint is not None:
            self._restore(checkpoint)
        if is_main():
            self.metrics.trim(self.task.name, self._state.step)
        total_images = self._train_step.total_steps * self.config.batch_size
        self.progress.start(self.task.name, total_images, self._images_seen())
        self._resumed_at = time.perf_counter() - self._state.seconds

    def _precision(self, checkpoint: Checkpoint | None) -> Precision:
        """Returns the checkpoint's precision or rank 0's; a second measurement may differ."""
        if checkpoint is not None:
            return checkpoint.state.precision
        resolved = on_main(lambda: asdict(resolve_precision(self.config.precision, self.device)))
        return Precision(**resolved)

    def _restore(self, checkpoint: Checkpoint) -> None:
        self._train_step.load(checkpoint.tensors)
        self._state = checkpoint.state.run
        self._train_step.metrics.sums = checkpoint.state.sums
        self._train_step.metrics.counts = checkpoint.state.counts
        if "best" in checkpoint.tensors:
            self._best = cloned(self._train_step.average.tensors)
            copy_into(self._best, checkpoint.tensors["best"], "the checkpoint's best weights")

    def _after_step(self) -> None:
        """Logs, validates and saves at the configured intervals."""
        step = self._state.step
        is_last = step == self._train_step.total_steps
        if step % self.config.log_every == 0 or is_last:
            self._log_training()
        if step % self._validation_interval == 0 or is_last:
            self._validate()
        if step % self.config.checkpoint_every == 0 or is_last or self._state.stopped_early:
            self._save()

    def _log_training(self) -> None:
        self._train_step.check_finite()
        values = self._train_step.metrics.take_means()
        values |= self._train_step.learning_rates
        self._write_row("train", values)
        self.progress.show({name: v for name, v in values.items() if name.startswith("loss")})

    def _validate(self) -> None:
        """Measures the averaged weights and keeps the best ones."""
        self._train_step.check_finite()
        objective = self.task.objective.eval()
        torch.manual_seed(derive_seed(self.seed, self.task.name, "validate", self._state.step))
        with (
            self._train_step.average.swapped_into(objective),
            torch.no_grad(),
            self._train_step.precision.autocast(self.device),
        ):
            metrics = mean_metrics(self.task.validate(self.device), self.device)
        objective.train()
        monitored = metrics.get(self.task.monitor)
        if monitored is None or not math.isfinite(monitored):
            raise RuntimeError(
                f"validation of {self.task.name} must give a finite {self.task.monitor!r}, got "
                f"{monitored} at step {self._state.step}; the last checkpoint, if any, is intact"
            )
        if self._state.judge(metrics, self.task.monitor):
            self._best = cloned(self._train_step.average.tensors)
        patience = self.config.patience
        self._state.stopped_early = (
            patience is not None and self._state.validations_since_best >= patience
        )
        self._write_row("validation", metrics)
        self.progress.show({f"validation {name}": value for name, value in metrics.items()})

    def _save(self) -> None:
        """Writes a checkpoint of finite weights."""
        self._train_step.check_finite()
        self._train_step.metrics.fold()
        if not is_main():
            return
        tensors = self._train_step.tensors()
        if self._best:
            tensors["best"] = self._best
        for group, members in tensors.items():
            name = first_non_finite(members)
            if name is not None:
                raise RuntimeError(
                    f"training {self.task.name} stopped at step {self._state.step}: {name!r} of "
                    f"its {group} tensors is not finite; the last checkpoint, if any, is intact"
                )
        running = self._train_step.metrics
        state = TrainingState(
            run=replace(self._state, seconds=self._seconds()),
            sums=running.sums,
            counts=running.counts,
            precision=self._train_step.precision,
            fingerprint=self._fingerprint,
            environment=environment(self.device),
        )
        self.metrics.flush()
        self._store.save(tensors, state)

    def _finish(self) -> TrainingResult:
        objective = self.task.objective.eval()
        copy_into(state_tensors(objective), self._best, "the best weights")
        # safetensors accepts no other memory format.
        objective.to(memory_format=torch.contiguous_format)
        return TrainingResult(
            step=self._state.step,
            images_seen=self._images_seen(),
            best_step=self._state.best_step,
            best_metrics=self._state.best_metrics,
            last_metrics=self._state.last_metrics,
            seconds=self._seconds(),
            precision=self._train_step.precision,
            stopped_early=self._state.stopped_early,
        )

    def _write_row(self, kind: Literal["train", "validation"], values: dict[str, float]) -> None:
        if is_main():
            row = MetricsRow(
                phase=self.task.name,
                kind=kind,
                step=self._state.step,
                images_seen=self._images_seen(),
                seconds=self._seconds(),
                values=values,
            )
            self.metrics.write(row)

    def _images_seen(self) -> int:
        return self._state.step * self.config.batch_size

    def _seconds(self) -> float:
        return time.perf_counter() - self._resumed_at
