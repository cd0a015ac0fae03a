"""Operations by hand, and a peak on a clock of known times."""

import pytest
import torch
from torch import nn
from toy_tasks import Output, QuadraticTask

from pipelines.benchmarks import flops
from pipelines.benchmarks.flops import flops_per_example, peak_flops
from pipelines.benchmarks.timing import Timing
from pipelines.training.precision import Precision

CPU = torch.device("cpu")


class TwoLayers(nn.Module):
    """3 features to 5 to 1."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1))

    def forward(self, x):
        return Output({"main": self.layers(x).mean()}, {})


def test_flops_are_those_of_the_products_forward_and_backward():
    task = QuadraticTask(torch.ones(8, 3))
    task.objective = TwoLayers()
    # Twice each weight forward, and for its gradient; the second layer's input has one, too.
    assert flops_per_example(task, CPU, batch_size=4) == 2 * (2 * 15 + 3 * 5)
    assert all(p.grad is None for p in task.objective.parameters())


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_peak_is_that_of_a_square_product_in_the_precision(name, dtype, monkeypatch):
    monkeypatch.setattr(flops, "_SIDE", 10)

    def measure(call, repetitions, _):
        assert call().dtype == dtype
        return Timing(0.5, 0.1, float(repetitions))

    monkeypatch.setattr(flops, "measure", measure)
    assert peak_flops(Precision(name=name, reason=""), CPU, 3) == 2 * 10**3 / 0.5
