"""Two gloo processes with half a batch each learn what one process learns from the whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from gloo_process import INITIALISED, POINTS, TRAINED, shared_batches, trained
from safetensors.torch import load_file
from tiny_vqvae import changed

from stage1_vqvae.collectives import all_reduce_sum, broadcast, is_distributed
from stage1_vqvae.quantizers.build import build_quantizer

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("gloo_process.py")
RESTARTED = ["restarted-ema", "restarted-gradient", "anchored-gradient"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of the two processes ended with."""
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("this build of torch has no gloo")
    directory = tmp_path_factory.mktemp("gloo")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(directory)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(errors)
    return [load_file(directory / f"rank-{rank}.safetensors") for rank in range(2)]


@pytest.mark.parametrize("case", TRAINED)
def test_two_processes_learn_what_one_learns_from_the_whole_batch(ranks, case):
    for name, expected in trained(case, shared_batches()).items():
        for state in ranks:
            # The same sums in another order, in float32.
            torch.testing.assert_close(state[f"{case}/{name}"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["ema", "residual", "product", *RESTARTED, *INITIALISED])
def test_two_processes_agree_bit_for_bit(ranks, case):
    first, second = (
        {name: tensor for name, tensor in state.items() if name.startswith(f"{case}/")}
        for state in ranks
    )
    assert first
    assert not changed(first, second)


@pytest.mark.parametrize("case", RESTARTED)
def test_two_processes_restart_dead_codes(ranks, case):
    before = trained(case.partition("-")[2], [])["codebook"]
    moved = (ranks[0][f"{case}/codebook"] - before).abs().amax(dim=1) > 1e-3
    assert moved[:3].all()


@pytest.mark.parametrize("case", INITIALISED)
def test_two_processes_start_from_their_batches(ranks, case):
    torch.manual_seed(0)
    before = build_quantizer(INITIALISED[case]).state_dict()
    after = {n.partition("/")[2]: t for n, t in ranks[1].items() if n.startswith(f"{case}/")}
    frozen = {"codebook"} if case == "initialised-simvq" else set()
    assert changed(before, after) == before.keys() - frozen


@pytest.mark.parametrize(
    "name",
    [
        "initialised/usage_average",
        "initialised-residual/stages.1.usage_average",
        "initialised-stochastic/usage_average",
    ],
)
def test_two_processes_start_with_the_usage_of_one(ranks, name):
    for state in ranks:
        torch.testing.assert_close(state[name], torch.full((7,), POINTS / 7))


def test_collectives_of_two_processes_sum_and_broadcast(ranks):
    for state in ranks:
        assert state["collectives/is_distributed"].item() is True
        assert state["collectives/sum"].tolist() == [3.0]
        assert state["collectives/first"].tolist() == [5.0]


@pytest.mark.parametrize("collective", [all_reduce_sum, broadcast])
def test_collectives_of_one_process_return_their_tensor(collective):
    tensor = torch.tensor([3.0])
    assert not is_distributed()
    assert collective(tensor) is tensor
    assert tensor.tolist() == [3.0]
