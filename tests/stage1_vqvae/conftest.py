"""Makes every random number repeatable, and runs contracts on a GPU too."""

import os

import pytest
import torch

CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.cuda,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ],
)


@pytest.fixture(autouse=True)
def seeded_single_thread():
    """Every test has the same random numbers, and tiny tensors one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["cpu", CUDA])
def every_device(request, monkeypatch):
    """What a test makes lies on each device in turn, where it is computed as in training."""
    if request.param == "cpu":
        yield
        return
    monkeypatch.setitem(os.environ, "CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    with torch.device(request.param):
        yield
    torch.use_deterministic_algorithms(False)
