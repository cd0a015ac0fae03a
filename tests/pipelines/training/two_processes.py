"""Runs in the processes that torchrun's environment describes; see `test_distributed.py`."""

import json
import os
import sys
from pathlib import Path

import torch
from torch import nn
from toy_tasks import QuadraticTask, TwoPlayerTask, small_config, trainer_for

from pipelines.training.distributed import (
    average_gradients,
    broadcast_from_main,
    process_group,
    rank,
)

CPU = torch.device("cpu")


class SharedTask(QuadraticTask):
    """Validation gives each process another value, so that a missing mean is noticed."""

    def validate(self, device: torch.device) -> dict[str, float]:
        return {"distance": super().validate(device)["distance"] + 2.0 * rank()}


def train(directory: Path, *, resume: bool) -> dict[str, object]:
    values = torch.randn(20, generator=torch.Generator().manual_seed(0))
    # Every process starts elsewhere: they must all take rank 0's weights.
    task = SharedTask(values, start=float(rank()), target=-5.0)
    # Unclipped gradients of changing sign: to constant ones AdamW is insensitive.
    config = small_config(average_decay=0.5, clip_norm=None)
    result = trainer_for(task, config, directory).fit(resume=resume)
    weight = task.objective.weight.item()
    return {"weight": weight, "seen": task.seen, "metrics": result.best_metrics}


def train_two_players(directory: Path) -> dict[str, object]:
    """The generator has a loss at every second step only."""
    task = TwoPlayerTask(torch.arange(20.0), every=2)
    trainer_for(task, small_config(clip_norm=None), directory).fit(resume=False)
    return {name: tensor.item() for name, tensor in task.objective.state_dict().items()}


def exchange() -> dict[str, object]:
    """Gradients of 1..16 times (rank + 1), one of them on rank 0 only; buffers full of rank."""
    kernel = nn.Parameter(torch.zeros(2, 2, 2, 2).to(memory_format=torch.channels_last))
    sometimes = nn.Parameter(torch.zeros(2))
    kernel.grad = torch.empty_like(kernel).copy_(torch.arange(16.0).view(2, 2, 2, 2) * (rank() + 1))
    if rank() == 0:
        sometimes.grad = torch.tensor([4.0, 6.0])
    average_gradients([kernel, sometimes])
    buffers = {
        "float": torch.full((1, 2, 2, 2), float(rank())).to(memory_format=torch.channels_last),
        "int": torch.tensor(rank()),
        "bool": torch.tensor([rank() == 0]),
    }
    broadcast_from_main(buffers)
    return {
        "kernel": kernel.grad.flatten().tolist(),
        "sometimes": sometimes.grad.tolist(),
        "buffers": {name: tensor.flatten().tolist() for name, tensor in buffers.items()},
    }


def main() -> None:
    directory, mode = Path(sys.argv[1]), sys.argv[2]
    with process_group(CPU):
        if mode == "players":
            report = train_two_players(directory)
        else:
            report = exchange() if mode == "exchange" else train(directory, resume=mode == "resume")
    (directory / f"report-{os.environ['RANK']}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
    # gloo's threads now and then abort an interpreter that is being torn down (torch 2.15).
    os._exit(0)
