"""Two gloo processes with half a batch each learn what one process learns from the whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from gloo_process import shared_batches, trained
from safetensors.torch import load_file

from stage1_vqvae.collectives import all_reduce_sum, broadcast, is_distributed

SCRIPT = Path(__file__).with_name("gloo_process.py")
NAMES = {
    "ema": ["codebook", "usage_average", "usage_sum"],
    "gradient": ["codebook", "usage_average"],
}
CASES = [(kind, name) for kind, names in NAMES.items() for name in names]


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


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_two_processes_learn_what_one_learns_from_the_whole_batch(ranks, kind, name):
    expected = trained(kind, shared_batches())[name]
    for state in ranks:
        # The same sums in another order, in float32.
        torch.testing.assert_close(state[f"{kind}/{name}"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["ema", "restarted", "initialised"])
@pytest.mark.parametrize("name", NAMES["ema"])
def test_two_processes_agree_bit_for_bit(ranks, case, name):
    first, second = (state[f"{case}/{name}"] for state in ranks)
    assert torch.equal(first, second)


def test_two_processes_restart_dead_codes(ranks):
    before = trained("ema", [])["codebook"]
    moved = (ranks[0]["restarted/codebook"] - before).abs().amax(dim=1) > 1e-3
    assert moved[:3].all()


def test_two_processes_initialise_the_usage_of_the_whole_batch(ranks):
    expected = torch.full((7,), 2 * 25 / 7)  # two images of 5x5 positions over 7 codes
    torch.testing.assert_close(ranks[1]["initialised/usage_average"], expected)


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
