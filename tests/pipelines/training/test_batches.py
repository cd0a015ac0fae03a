import itertools
from dataclasses import replace

import pytest
import torch

from pipelines.training.batches import BatchPlan, index_batches
from pipelines.training.randomness import ExampleOrder

PLAN = BatchPlan(seed=3, batch_size=12, accumulation=2, world_size=3)


def first(plan, count):
    return list(itertools.islice(index_batches(plan, 20), count))


def test_processes_and_batches_share_each_step_without_overlap():
    order = ExampleOrder(20, 12, seed=3)
    shares = [first(replace(PLAN, rank=rank), 6) for rank in range(3)]
    assert (
        {len(indices) for share in shares for indices in share} == {PLAN.examples_per_batch} == {2}
    )
    for step in range(3):
        parts = [share[2 * step + part] for part in range(2) for share in shares]
        assert torch.cat(parts).equal(order.batch(step))


@pytest.mark.parametrize("start_step", [0, 1, 5])
def test_batches_from_a_step_on_are_those_of_the_whole_training(start_step):
    resumed = first(replace(PLAN, start_step=start_step), 4)
    whole = first(PLAN, 2 * start_step + 4)[2 * start_step :]
    assert all(a.equal(b) for a, b in zip(resumed, whole, strict=True))
