"""Lets the tests import the helper modules of this directory, and makes samples repeatable."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def seeded_single_thread():
    """Every test samples the same, and tiny tensors do not wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def _uncompiled(monkeypatch):
    """`compile="on"` takes the step as it is, without compiling it."""
    from stage2_prior.sampling import checks
    from stage2_prior.transformer import decoding_step

    monkeypatch.setattr(checks, "can_compile", lambda _device: True)
    monkeypatch.setattr(
        decoding_step, "compiled_decoding_step", lambda: decoding_step.decoding_step
    )
