"""Which examples each forward pass of training takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from pipelines.training.randomness import ExampleOrder


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPlan:
    """Everything that decides which examples a process trains on, and when."""

    seed: int
    """Seed of the order of the examples."""
    batch_size: int
    """Examples per step, over all processes and accumulated batches."""
    accumulation: int = 1
    """Batches per step and process."""
    start_step: int = 0
    """The first step; more than 0 on resume."""
    rank: int = 0
    """Number of this process in [0, world_size)."""
    world_size: int = 1
    """Number of processes."""

    @property
    def examples_per_batch(self) -> int:
        """Examples in each batch of this process."""
        return self.batch_size // (self.accumulation * self.world_size)


def index_batches(plan: BatchPlan, num_examples: int) -> Iterator[Tensor]:
    """Yields the batches of a training split that can be indexed: int64 (plan.examples_per_batch,).

    Each is made only when it is asked for, and none before `start_step` is. The indices are those
    of `ExampleOrder`, on the CPU.
    """
    order = ExampleOrder(num_examples, plan.batch_size, plan.seed)
    for step in itertools.count(plan.start_step):
        # (batch_size,) -> batch, process, example: the union over both is the whole step's batch.
        parts = order.batch(step).view(plan.accumulation, plan.world_size, plan.examples_per_batch)
        yield from parts[:, plan.rank]
