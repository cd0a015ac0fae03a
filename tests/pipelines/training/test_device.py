import pytest
import torch

from pipelines.training.device import choose_device, float64_device


@pytest.fixture
def gpus(monkeypatch):
    """Pretends a number of GPUs."""

    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)

    pretend(0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return pretend


@pytest.mark.usefixtures("gpus")
def test_auto_is_the_cpu_where_there_is_nothing_else():
    assert choose_device("auto") == torch.device("cpu")


def test_auto_prefers_cuda_to_mps(gpus, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")
    gpus(1)
    assert choose_device("auto") == torch.device("cuda:0")


def test_cuda_is_the_gpu_of_this_process(gpus, monkeypatch):
    gpus(4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device("cuda") == torch.device("cuda:3")


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("name", ["meta", "cuda:x"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(ValueError, match=f"device must be .* got '{name}'"):
        choose_device(name)


@pytest.mark.parametrize("name", ["cuda:2", "mps"])
def test_a_missing_device_is_refused(gpus, name):
    gpus(2)
    with pytest.raises(ValueError, match=f"'{name}' is not available"):
        choose_device(name)


@pytest.mark.parametrize(("name", "expected"), [("mps", "cpu"), ("cuda:1", "cuda:1")])
def test_float64_is_computed_where_there_is_some(name, expected):
    assert float64_device(torch.device(name)) == torch.device(expected)
