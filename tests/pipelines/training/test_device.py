import pytest
import torch

from pipelines.training.device import choose_device, deterministic_algorithms, float64_device


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


@pytest.fixture
def _tensorfloat_32(monkeypatch):
    """As fast and as inexact as a program can have set it before."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("_tensorfloat_32")
def test_cuda_computes_float32_in_ieee_precision(gpus, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    gpus(1)
    choose_device("cpu")
    assert torch.backends.cudnn.allow_tf32
    choose_device("cuda")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.conv.fp32_precision != "tf32"


@pytest.mark.parametrize(("name", "deterministic"), [("cuda", True), ("cpu", False)])
def test_algorithms_are_deterministic_on_cuda_for_the_block(name, deterministic):
    def settings():
        filled = torch.utils.deterministic.fill_uninitialized_memory
        return torch.are_deterministic_algorithms_enabled(), filled

    before = settings()
    with deterministic_algorithms(torch.device(name)):
        assert settings() == ((True, False) if deterministic else before)
    assert settings() == before == (False, True)
