"""Tasks small enough to know what training must make of them."""

# ruff: noqa: ARG002 (they have the arguments of the protocol, and need few of them)

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.training.batches import BatchPlan, index_batches
from pipelines.training.config import TrainingConfig
from pipelines.training.metrics_log import MetricsLog
from pipelines.training.precision import Precision
from pipelines.training.run_state import RunState, TrainingState, environment, fingerprint
from pipelines.training.task import OptimizerSpec
from pipelines.training.trainer import Trainer


@dataclass(frozen=True)
class Output:
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]


class MainOptimizer:
    """The usual case: one optimizer over the whole objective."""

    def optimizers(self, config: TrainingConfig) -> dict[str, OptimizerSpec]:
        return {"main": OptimizerSpec(module=self.objective, config=config)}


class Quadratic(nn.Module):
    """loss = mean of (weight - x)**2 / 2, so that d loss / d weight = weight - mean(x)."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([start]))

    def forward(self, x: Tensor) -> Output:
        loss = ((self.weight - x) ** 2).mean() / 2
        return Output({"main": loss}, {"mean_x": x.mean()})


class QuadraticTask(MainOptimizer):
    name = "quadratic"
    monitor = "distance"

    def __init__(self, values: Tensor, start: float = 0.0, target: float = 0.0) -> None:
        self.objective: nn.Module = Quadratic(start)
        self.values = values
        self.target = target
        self.num_training_examples = len(values)
        self.origin = "values"
        self.seen: list[list[int]] = []
        self.fractions: list[float] = []
        self.preparations = 0

    def prepare(self, device: torch.device) -> None:
        self.preparations += 1

    def batches(self, plan: BatchPlan, device: torch.device) -> Iterator[tuple[Tensor]]:
        for indices in index_batches(plan, len(self.values)):
            self.seen.append(indices.tolist())
            yield (self.values[indices].to(device),)

    def set_progress(self, fraction: float) -> None:
        self.fractions.append(fraction)

    def validate(self, device: torch.device) -> dict[str, float]:
        return {"distance": abs(self.objective.weight.item() - self.target)}


class Net(nn.Module):
    """What makes a resume hard: dropout, averaged buffers, counters, replaced buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(4, 1)
        self.register_buffer("running", torch.zeros(4))
        self.register_buffer("batches", torch.tensor(0))

    def forward(self, x: Tensor, y: Tensor) -> Output:
        hidden = self.dropout(self.conv(x).relu().mean((2, 3)))
        if self.training:
            self.running = 0.9 * self.running + 0.1 * hidden.detach().mean(0)
            self.batches += 1
        loss = ((self.head(hidden - self.running).squeeze(1).float() - y) ** 2).mean()
        return Output({"main": loss}, {"hidden": hidden.detach().mean()})


class NetTask(MainOptimizer):
    """`on_call` is told the name of every call, and may raise to play a kill at that moment."""

    name = "net"
    monitor = "mse"
    num_training_examples = 20
    origin = "a net"

    def __init__(self, on_call: Callable[[str], None] = lambda _: None) -> None:
        generator = torch.Generator().manual_seed(1)
        torch.manual_seed(2)
        self.objective: nn.Module = Net()
        self.x = torch.randn(24, 2, 5, 5, generator=generator)
        self.y = self.x.mean((1, 2, 3)) * 5
        self.on_call = on_call

    def prepare(self, device: torch.device) -> None:
        self.on_call("prepare")
        self.objective.running = torch.rand(4)

    def batches(self, plan: BatchPlan, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in index_batches(plan, self.num_training_examples):
            self.on_call("batch")
            x = self.x[indices]
            yield x + 0.1 * torch.randn_like(x), self.y[indices]

    def set_progress(self, fraction: float) -> None:
        self.on_call("set_progress")

    def validate(self, device: torch.device) -> dict[str, float]:
        self.on_call("validate")
        return {"mse": self.objective(self.x[20:], self.y[20:]).losses["main"].item()}


class Players(nn.Module):
    """Two numbers against each other, and no `detach` between them.

    generator's loss = g d x, discriminator's loss = (d - g)^2 / 2, so that

        d generator / d g = d x    d discriminator / d d = d - g
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        self.generator = nn.ParameterDict({"g": torch.tensor(3.0)})
        self.discriminator = nn.ParameterDict({"d": torch.tensor(1.0)})
        self.register_buffer("steps", torch.tensor(0))
        self.every = every

    def forward(self, x: Tensor) -> Output:
        g, d = self.generator["g"], self.discriminator["d"]
        losses = {"discriminator": (d - g) ** 2 / 2}
        if self.steps % self.every == 0:
            losses["generator"] = g * d * x.mean()
        return Output(losses, {"product": (g * d).detach()})


class TwoPlayerTask(QuadraticTask):
    """`Players`; the generator moves at every `every`-th step, the other at a tenth of its rate."""

    name = "players"

    def __init__(self, values: Tensor, every: int = 1) -> None:
        super().__init__(values)
        self.objective = Players(every)

    def optimizers(self, config: TrainingConfig) -> dict[str, OptimizerSpec]:
        slower = replace(config, learning_rate=config.learning_rate / 10, clip_norm=1.0)
        return {
            "generator": OptimizerSpec(module=self.objective.generator, config=config),
            "discriminator": OptimizerSpec(module=self.objective.discriminator, config=slower),
        }

    def set_progress(self, fraction: float) -> None:
        self.objective.steps += 1

    def validate(self, device: torch.device) -> dict[str, float]:
        return {"distance": abs(self.objective.generator["g"].item())}


def small_config(**changes) -> TrainingConfig:
    """12 steps of 8 images, in float32, with every event at another step."""
    settings = {
        "epochs": 4.8,
        "batch_size": 8,
        "accumulation": 2,
        "learning_rate": 0.05,
        "validate_every": 2.0,
        "checkpoint_every": 3,
        "log_every": 4,
        "precision": "fp32",
    }
    return TrainingConfig(**(settings | changes))


def trainer_for(task, config: TrainingConfig, directory: Path, **changes) -> Trainer:
    settings = {
        "checkpoint_dir": directory / "checkpoints",
        "metrics": MetricsLog(directory / "metrics.jsonl"),
        "device": torch.device("cpu"),
        "seed": 0,
    }
    return Trainer(task, config, **(settings | changes))


def state_at(step: int, **changes) -> TrainingState:
    """Of a training of `NetTask` without validations so far, in the middle of a line of its log."""
    parts = {
        "run": RunState(step=step),
        "sums": {"loss": 1.5},
        "counts": {"loss": 2},
        "precision": Precision(name="fp32", reason="it was asked for"),
        "fingerprint": fingerprint(NetTask(), small_config(epochs=100.0), 0),
        "environment": environment(torch.device("cpu")),
    }
    return TrainingState(**(parts | changes))
