"""A peak on a clock of known times."""

import pytest
import torch

from pipelines.benchmarks import peak_flops as module
from pipelines.benchmarks.peak_flops import peak_flops
from pipelines.benchmarks.timing import Timing
from pipelines.training.precision import Precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_peak_is_that_of_a_square_product_in_the_precision(name, dtype, monkeypatch):
    monkeypatch.setattr(module, "_SIDE", 10)

    def measure(call, repetitions, _):
        assert call().dtype == dtype
        return Timing(0.5, 0.1, float(repetitions))

    monkeypatch.setattr(module, "measure", measure)
    assert peak_flops(Precision(name=name, reason=""), CPU, 3) == 2 * 10**3 / 0.5
