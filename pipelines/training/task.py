"""The contract between the training loop and what it trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pipelines.training.batches import BatchPlan
from pipelines.training.config import TrainingConfig


class StepOutput(Protocol):
    """Result of one forward pass of an objective."""

    @property
    def losses(self) -> Mapping[str, Tensor]:
        """float32 () losses by optimizer, each the mean over the batch.

        The gradient of a loss reaches the parameters of its own optimizer only. An optimizer
        without a loss does not step, so that two of them may alternate. All batches of a step, in
        every process, must have the same names.
        """
        ...

    @property
    def metrics(self) -> Mapping[str, Tensor]:
        """Detached float32 () metrics by name, each the mean over the batch."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerSpec:
    """The parameters and the settings of one optimizer."""

    module: nn.Module
    """The optimizer updates every parameter of this part of the objective that requires a
    gradient."""
    config: TrainingConfig
    """Its kind, learning rate and schedule, weight decay, betas and clip_norm; the other settings
    are read from the trainer's config."""


class Task(Protocol):
    """An objective with its training examples, its optimizers and its validation.

    A task must be stateless apart from `objective`: everything that changes during training has to
    live in its parameters and persistent buffers, which a checkpoint holds. A plain attribute
    satisfies each property below.

    Torch's global stream may be used in every method: the trainer seeds it before each step, before
    `prepare` and before each `validate`.
    """

    @property
    def name(self) -> str:
        """Short identifier, used in file names and logs (`vqvae`, `prior`)."""
        ...

    @property
    def objective(self) -> nn.Module:
        """Owns every trained tensor; `objective(*batch)` returns a `StepOutput`.

        A module in it may have an attribute `outer_layers`, a tuple of the modules in it that read
        the input or return the output: Muon leaves them to AdamW.
        """
        ...

    @property
    def monitor(self) -> str:
        """The key of `validate()` that selects the best weights; lower is better."""
        ...

    @property
    def num_training_examples(self) -> int:
        """Size of the training split."""
        ...

    @property
    def origin(self) -> str:
        """Model and data; a checkpoint of another origin is not resumed."""
        ...

    def optimizers(self, config: TrainingConfig) -> Mapping[str, OptimizerSpec]:
        """Assigns each trainable parameter of the objective to one optimizer.

        `config` has the trainer's settings, from which each optimizer's are derived. Names are
        identifiers; a single optimizer is called `main`.
        """
        ...

    def prepare(self, device: torch.device) -> None:
        """Runs once before the first step and never on resume (data-driven initialisation).

        The objective is on `device` and in training mode; gradients are off.
        """
        ...

    def batches(self, plan: BatchPlan, device: torch.device) -> Iterator[tuple[Tensor | None, ...]]:
        """Yields the batches of this process on `device`, from `plan.start_step` on, endlessly.

        Each step takes `plan.accumulation` batches, each of `plan.examples_per_batch` examples.
        The batches of a step must not depend on `start_step`, nor on earlier batches. The iterator
        is advanced once per batch, after `set_progress`; a generator is closed when training ends
        or is interrupted.
        """
        ...

    def set_progress(self, fraction: float) -> None:
        """Sets the fraction of training done, in [0, 1]; called before each step."""
        ...

    def validate(self, device: torch.device) -> Mapping[str, float]:
        """Measures the current weights of `objective` on the validation split.

        Runs in evaluation mode, without gradients and under the training precision's autocast.
        Under torchrun every process calls it, and the metrics are averaged over the processes.
        """
        ...
