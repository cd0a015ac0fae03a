"""Makes every random number repeatable."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded_single_thread():
    """Every test has the same random numbers, and tiny tensors one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
