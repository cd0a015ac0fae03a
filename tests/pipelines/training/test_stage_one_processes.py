"""Several processes learn the codebooks that one learns, whatever their number."""

from pathlib import Path

import pytest
import torch
from processes import errors_of, start
from safetensors.torch import load_file
from stage_one_processes import BATCH, QUANTIZERS, train

SCRIPT = Path(__file__).with_name("stage_one_processes.py")


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    directory = tmp_path_factory.mktemp("one")
    states = [train(name, directory) for name in QUANTIZERS]
    return states[0] | states[1] | states[2]


@pytest.mark.slow
def test_several_processes_learn_the_codebooks_of_one(one, tmp_path):
    processes = start([[SCRIPT, tmp_path]] * 3)
    errors = errors_of(processes)
    assert [process.returncode for process in processes] == [0] * 3, errors
    several = load_file(tmp_path / "state.safetensors")
    assert several.keys() == one.keys()
    for name, expected in one.items():
        # The same sums in another order, in float32, over twelve steps.
        torch.testing.assert_close(several[name], expected, rtol=1e-3, atol=1e-4, msg=name)


def test_usage_adds_up_to_the_positions_of_a_forward_pass(one):
    usage = [tensor for name, tensor in one.items() if name.endswith("usage_average")]
    assert len(usage) == 1 + 2 + 2
    # 2x2 positions an image; a step is accumulated from two forward passes.
    for average in usage:
        assert average.sum().item() == pytest.approx(BATCH / 2 * 2 * 2, rel=1e-4)
