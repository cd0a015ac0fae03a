"""What the trainer asks of a task: the one border between the training loop and the stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn


class StepOutput(Protocol):
    """What one forward pass of an objective gives; both stages' records have this shape."""

    @property
    def loss(self) -> Tensor:
        """float32 () — the mean over the batch, in the units the objective documents."""
        ...

    @property
    def metrics(self) -> Mapping[str, Tensor]:
        """Detached float32 () figures by name, each a mean over the batch."""
        ...


class Task(Protocol):
    """A thing to train: an objective, its training examples by index, and how it is judged.

    The trainer owns the order of the examples, accumulation, the optimizer, the averaged weights,
    precision, checkpoints and logs. A task must be stateless apart from `objective`: everything
    that changes during training has to live in its parameters and persistent buffers, because that
    is what a checkpoint holds. A plain attribute satisfies each property below.

    Randomness may be drawn from torch's global stream wherever the trainer calls the task: the
    trainer seeds that stream before each step, before `prepare` and before each `validate`.
    """

    @property
    def name(self) -> str:
        """Short identifier, used in file names and logs (`vqvae`, `prior`)."""
        ...

    @property
    def objective(self) -> nn.Module:
        """Owns every trained tensor; `objective(*batch)` gives a `StepOutput`.

        A module in it may have an attribute `outer_layers`, a tuple of the modules in it that read
        the input or give the output: Muon leaves them to AdamW.
        """
        ...

    @property
    def monitor(self) -> str:
        """The key of `validate()` that chooses the best weights; lower is better."""
        ...

    @property
    def num_training_examples(self) -> int:
        """Size of the training split."""
        ...

    @property
    def origin(self) -> str:
        """What is trained, and from what: a checkpoint of another origin is not resumed."""
        ...

    def prepare(self, device: torch.device) -> None:
        """Runs once before the first step and never on resume (data-driven initialisation).

        The objective is on `device` and in training mode; gradients are off.
        """
        ...

    def batch(self, indices: Tensor, device: torch.device) -> tuple[Tensor | None, ...]:
        """Loads the training examples `indices` (int64 (B,), on the CPU) onto `device`."""
        ...

    def set_progress(self, fraction: float) -> None:
        """Tells the objective how much of training is done, in [0, 1], before each step."""
        ...

    def validate(self, device: torch.device) -> Mapping[str, float]:
        """Measures the weights `objective` holds now on the validation split.

        Runs in evaluation mode, without gradients and under the training precision's autocast.
        Under torchrun every process calls it, and the figures are averaged over the processes.
        """
        ...
