"""One optimizer step, and all tensors that it changes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from pipelines.training.averaging import WeightAverage
from pipelines.training.config import TrainingConfig
from pipelines.training.distributed import average_gradients, rank, world_size
from pipelines.training.optimizer import (
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
)
from pipelines.training.precision import Precision
from pipelines.training.randomness import ExampleOrder, derive_seed
from pipelines.training.running_means import FigureWindow
from pipelines.training.schedule import learning_rate_factor
from pipelines.training.state_tensors import copy_into, state_tensors
from pipelines.training.task import StepOutput, Task


class Optimisation:
    """The objective with its optimizer, its averaged weights and its training figures.

    Args:
        task: Its objective is on `device` and prepared.
        config: The training's settings.
        device: Where to compute.
        precision: The number format of the forward pass.
        seed: Decides the order of the examples and every random draw.

    Raises:
        ValueError: If the batch cannot be shared equally among the processes.
    """

    def __init__(
        self,
        task: Task,
        config: TrainingConfig,
        device: torch.device,
        precision: Precision,
        seed: int,
    ) -> None:
        config.check_processes(world_size())
        self.task = task
        self.config = config
        self.device = device
        self.precision = precision
        self.seed = seed
        self.total_steps = config.total_steps(task.num_training_examples)
        order_seed = derive_seed(seed, task.name, "order")
        self.order = ExampleOrder(task.num_training_examples, config.batch_size, order_seed)
        self.optimizer = build_optimizer(task.objective, config)
        self.average = WeightAverage(task.objective, config.average_decay)
        self.figures = FigureWindow()
        self._unchecked: list[tuple[int, Tensor, Tensor]] = []

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, step: int) -> None:
        """Makes optimizer step `step` (0 for the first): the same step, the same result.

        Raises:
            RuntimeError: If the loss or the gradient is not finite. On a CPU this is noticed before
                the weights change; elsewhere by the next `check_finite`, because looking at every
                step would make the device wait.
        """
        torch.manual_seed(derive_seed(self.seed, self.task.name, step, rank()))
        self.task.set_progress(step / self.total_steps)
        self._set_learning_rate(step)

        loss = self._accumulate_gradients(step)
        average_gradients([p for p in self.task.objective.parameters() if p.requires_grad])
        parameters = [p for p in self.task.objective.parameters() if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        self._unchecked.append((step + 1, loss, norm))
        if self.device.type == "cpu":
            self.check_finite()
        if self.config.clip_norm is not None:
            clip_grads_with_norm_(parameters, self.config.clip_norm, norm)

        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.task.objective, updates=step)
        self.figures.add({"gradient_norm": norm})

    def check_finite(self) -> None:
        """Looks at the loss and the gradient of every step since the last look.

        Raises:
            RuntimeError: If one was not finite; the message has the first such step and the cause.
        """
        unchecked, self._unchecked = self._unchecked, []
        if not unchecked:
            return
        steps = [step for step, _, _ in unchecked]
        losses = torch.stack([loss for _, loss, _ in unchecked]).tolist()
        norms = torch.stack([norm for _, _, norm in unchecked]).tolist()
        for step, loss, norm in zip(steps, losses, norms, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                cause = "gradient's norm" if math.isfinite(loss) else "loss"
                value = norm if math.isfinite(loss) else loss
                raise RuntimeError(
                    f"training {self.task.name} stopped at step {step}: the {cause} is {value}; "
                    "the last checkpoint, if any, is intact; start a new run with a lower "
                    "learning_rate or clip_norm"
                )

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All tensors that change from step to step, by group."""
        return {
            "model": state_tensors(self.task.objective),
            "averaged": self.average.tensors,
            "optimizer": optimizer_tensors(self.optimizer, self.task.objective),
        }

    def load(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Puts back what `tensors` gave.

        Raises:
            ValueError: If they belong to another model.
        """
        copy_into(state_tensors(self.task.objective), tensors["model"], "the checkpoint's model")
        copy_into(self.average.tensors, tensors["averaged"], "the checkpoint's weight average")
        load_optimizer_tensors(self.optimizer, self.task.objective, tensors["optimizer"])

    def _set_learning_rate(self, step: int) -> None:
        factor = learning_rate_factor(
            step,
            total_steps=self.total_steps,
            warmup_fraction=self.config.warmup_fraction,
            final_factor=self.config.final_learning_rate,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * factor

    def _accumulate_gradients(self, step: int) -> Tensor:
        """Backward through this process's share of the batch; returns its mean loss ()."""
        parts = self.config.accumulation
        # (batch_size,) -> part, process, example: the union over both is the whole batch.
        indices = self.order.batch(step).view(parts, world_size(), -1)[:, rank()]
        losses = []
        for part in indices:
            batch = self.task.batch(part, self.device)
            with self.precision.autocast(self.device):
                output: StepOutput = self.task.objective(*batch)
            (output.loss / parts).backward()  # type: ignore[no-untyped-call]
            losses.append(output.loss.detach())
            self.figures.add({"loss": output.loss, **output.metrics})
        return torch.stack(losses).mean()
