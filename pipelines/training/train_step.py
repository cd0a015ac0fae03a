"""One training step, and all tensors that it changes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Mapping

import torch
from torch import Tensor, nn

from pipelines.training.averaging import WeightAverage
from pipelines.training.batches import BatchPlan
from pipelines.training.config import TrainingConfig
from pipelines.training.distributed import average_gradients, rank, world_size
from pipelines.training.optimizer import ModuleOptimizer
from pipelines.training.precision import Precision
from pipelines.training.randomness import derive_seed
from pipelines.training.running_means import RunningMeans
from pipelines.training.state_tensors import copy_into, state_tensors
from pipelines.training.task import StepOutput, Task


class TrainStep:
    """The objective with its optimizers, its averaged weights and its running metrics.

    All losses of a step are differentiated at the weights it started from; then each optimizer that
    has a loss steps. The task's objective is on `device` and prepared; `seed` decides the order of
    the examples and every random number; `start_step` is more than 0 on resume.
    """

    def __init__(
        self,
        task: Task,
        config: TrainingConfig,
        device: torch.device,
        precision: Precision,
        seed: int,
        start_step: int = 0,
    ) -> None:
        config.check_processes(world_size())
        self.task = task
        self.config = config
        self.device = device
        self.precision = precision
        self.seed = seed
        self.total_steps = config.total_steps(task.num_training_examples)
        plan = BatchPlan(
            seed=derive_seed(seed, task.name, "order"),
            batch_size=config.batch_size,
            accumulation=config.accumulation,
            start_step=start_step,
            rank=rank(),
            world_size=world_size(),
        )
        self._batches = task.batches(plan, device)
        # Compiled, a wrapper around the objective, whose own names and state stay as they are.
        self._forward: Callable[..., StepOutput] = (
            torch.compile(task.objective, dynamic=False) if config.compile else task.objective
        )
        self._optimizers = {
            name: ModuleOptimizer(spec.module, spec.config, precision.dtype)
            for name, spec in task.optimizers(config).items()
        }
        _require_one_owner(task.objective, self._optimizers)
        self.average = WeightAverage(task.objective, config.average_decay)
        self.metrics = RunningMeans()
        self._unchecked: list[tuple[int, str, Tensor]] = []

    @property
    def learning_rates(self) -> dict[str, float]:
        """Learning rate of the last step: `learning_rate`, or `learning_rate/NAME` of several."""
        return {
            self._label("learning_rate", name): optimizer.learning_rate
            for name, optimizer in self._optimizers.items()
        }

    def step(self, step: int) -> None:
        """Makes optimizer step `step` (0 for the first): the same step, the same result."""
        torch.manual_seed(derive_seed(self.seed, self.task.name, step, rank()))
        self.task.set_progress(step / self.total_steps)
        losses = self._accumulate_gradients()
        stepping = {name: o for name, o in self._optimizers.items() if name in losses}
        norms = {}
        for name, optimizer in stepping.items():
            average_gradients(optimizer.parameters)
            norms[name] = optimizer.gradient_norm()
            self._unchecked.append((step + 1, self._label("loss", name), losses[name]))
            self._unchecked.append((step + 1, self._label("gradient_norm", name), norms[name]))
        if self.device.type == "cpu":  # elsewhere a look at every step would make the device wait
            self.check_finite()
        for optimizer in self._optimizers.values():  # all of them: a resume would not know the rate
            optimizer.schedule(step, self.total_steps)
        for name, optimizer in stepping.items():
            optimizer.step(norms[name])
        self.average.update(self.task.objective, updates=step)
        self.metrics.add({self._label("gradient_norm", name): norm for name, norm in norms.items()})

    def close(self) -> None:
        """Closes the iterator of batches if it is a generator."""
        if isinstance(self._batches, Generator):
            self._batches.close()

    def check_finite(self) -> None:
        """Checks the losses and gradients of every step since the last check."""
        unchecked, self._unchecked = self._unchecked, []
        if not unchecked:
            return
        values = torch.stack([value for _, _, value in unchecked]).tolist()
        for (step, label, _), value in zip(unchecked, values, strict=True):
            if not math.isfinite(value):
                raise RuntimeError(
                    f"training {self.task.name} stopped at step {step}: the {label} is {value}; "
                    "the last checkpoint, if any, is intact; start a new run with a lower "
                    "learning_rate or clip_norm"
                )

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Returns all tensors that change from step to step, by group."""
        return {
            "model": state_tensors(self.task.objective),
            "averaged": self.average.tensors,
            **{
                f"optimizer-{name}": optimizer.tensors()
                for name, optimizer in self._optimizers.items()
            },
        }

    def load(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restores the result of `tensors`."""
        missing = sorted(self.tensors().keys() - tensors.keys())
        if missing:
            raise ValueError(
                f"the checkpoint must hold the tensors {missing}, got {sorted(tensors)}: it was "
                "made with another model"
            )
        copy_into(state_tensors(self.task.objective), tensors["model"], "the checkpoint's model")
        copy_into(self.average.tensors, tensors["averaged"], "the checkpoint's weight average")
        for name, optimizer in self._optimizers.items():
            optimizer.load(tensors[f"optimizer-{name}"])

    def _accumulate_gradients(self) -> dict[str, Tensor]:
        """Backpropagates this process's share of a step; returns mean losses () by optimizer."""
        parts = self.config.accumulation
        totals: dict[str, list[Tensor]] = {}
        for _ in range(parts):
            batch = next(self._batches)
            with self.precision.autocast(self.device):
                output = self._forward(*batch)
            losses = dict(output.losses)
            if not losses or losses.keys() - self._optimizers.keys():
                raise ValueError(
                    f"losses must be named after optimizers, {sorted(self._optimizers)}, got "
                    f"{sorted(losses)}"
                )
            *_, last = losses
            for name, loss in losses.items():
                (loss / parts).backward(  # type: ignore[no-untyped-call]
                    inputs=self._optimizers[name].parameters, retain_graph=name != last
                )
                totals.setdefault(name, []).append(loss.detach())
            labelled = {self._label("loss", name): loss for name, loss in losses.items()}
            self.metrics.add({**labelled, **output.metrics})
        return {name: torch.stack(values).mean() for name, values in totals.items()}

    def _label(self, metric: str, optimizer: str) -> str:
        """Returns the name under which a metric of one optimizer is logged."""
        return metric if len(self._optimizers) == 1 else f"{metric}/{optimizer}"


def _require_one_owner(objective: nn.Module, optimizers: Mapping[str, ModuleOptimizer]) -> None:
    owners = Counter(id(p) for optimizer in optimizers.values() for p in optimizer.parameters)
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad and owners[id(parameter)] != 1:
            raise ValueError(
                f"each trainable parameter must belong to one optimizer, but {name!r} belongs to "
                f"{owners[id(parameter)]}: freeze it, or change the task's optimizers"
            )
