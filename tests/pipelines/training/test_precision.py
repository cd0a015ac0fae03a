import pytest
import torch

from pipelines.training import precision
from pipelines.training.precision import probe_cpu, resolve_precision

CPU = torch.device("cpu")


def spoil(monkeypatch, layer, factor):
    """Multiplies the bfloat16 weight gradient of one layer by `factor`."""
    run_layer = precision.run_layer

    def spoiled(name, inputs, weight, *, bf16):
        output, input_gradient, weight_gradient = run_layer(name, inputs, weight, bf16=bf16)
        wrong = factor if bf16 and name == layer else 1.0
        return output, input_gradient, weight_gradient * wrong

    monkeypatch.setattr(precision, "run_layer", spoiled)


@pytest.mark.parametrize(("layer", "factor"), [("linear", 1.5), ("conv2x2", float("nan"))])
def test_probe_refuses_a_wrong_layer(monkeypatch, layer, factor):
    monkeypatch.setattr(precision, "speed_ratio", lambda: 2.0)
    spoil(monkeypatch, layer, factor)
    found = probe_cpu()
    assert found.name == "fp32"
    assert layer in found.reason


def test_probe_refuses_a_slow_bf16(monkeypatch):
    monkeypatch.setattr(precision, "relative_error", lambda _: 0.0)
    monkeypatch.setattr(precision, "speed_ratio", lambda: 0.1)
    found = probe_cpu()
    assert found.name == "fp32"
    assert "10.0 times" in found.reason


def test_probe_takes_a_right_and_fast_bf16(monkeypatch):
    monkeypatch.setattr(precision, "relative_error", lambda _: 0.003)
    monkeypatch.setattr(precision, "speed_ratio", lambda: 2.5)
    found = probe_cpu()
    assert found.name == "bf16"
    assert "2.5 times" in found.reason


def test_speed_ratio_is_the_quotient_of_the_shortest_times(monkeypatch):
    now = 0.0

    def run_layer(*_, bf16):
        nonlocal now
        now += 1.0 if bf16 else 3.0

    monkeypatch.setattr(precision, "run_layer", run_layer)
    monkeypatch.setattr(precision.time, "thread_time", lambda: now)
    assert precision.speed_ratio() == 3.0


def test_probe_leaves_random_stream_and_threads_alone():
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    probe_cpu()
    assert torch.rand(3).equal(expected)
    assert torch.get_num_threads() == threads


def test_precision_that_was_asked_for_is_not_probed(monkeypatch):
    monkeypatch.delattr(precision, "probe_cpu")
    assert resolve_precision("bf16", CPU).name == "bf16"


@pytest.mark.parametrize(("supported", "name"), [(True, "bf16"), (False, "fp32")])
def test_precision_on_a_gpu_is_what_the_gpu_has(monkeypatch, supported, name):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: supported)
    assert resolve_precision("auto", torch.device("cuda")).name == name


def test_precision_on_mps_is_fp32():
    assert resolve_precision("auto", torch.device("mps")).name == "fp32"
