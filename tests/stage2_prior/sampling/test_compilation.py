"""Whether sampling is compiled: on request, or where it pays and works."""

import pytest
import torch

from stage2_prior import SamplingSettings
from stage2_prior.sampling import checks
from stage2_prior.sampling.compilation import can_compile

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("num_codes", "able", "possible", "num_steps", "decided"),
    [
        (500_000, True, True, None, "on"),
        (499_999, True, True, None, "off"),
        (10**9, False, True, None, "off"),
        (10**9, True, False, None, "off"),
        (10**9, True, True, 3, "off"),
    ],
)
def test_auto_compiles_where_it_pays_and_works(
    monkeypatch, num_codes, able, possible, num_steps, decided
):
    monkeypatch.setattr(checks, "can_compile", lambda _device: able)
    settings = SamplingSettings(compile="auto", top_k=3, num_steps=num_steps)
    actual = checks.decide_compilation(settings, num_codes, CPU, possible=possible)
    assert actual == SamplingSettings(compile=decided, top_k=3, num_steps=num_steps)


@pytest.mark.parametrize("compile_", ["off", "on"])
def test_a_decision_of_the_user_is_kept(monkeypatch, compile_):
    monkeypatch.setattr(checks, "can_compile", lambda _device: True)
    settings = SamplingSettings(compile=compile_)
    for num_codes in (1, 10**9):
        assert checks.decide_compilation(settings, num_codes, CPU, possible=True) == settings


def test_missing_compiler_is_said(monkeypatch):
    monkeypatch.setattr(checks, "can_compile", lambda _device: False)
    with pytest.raises(RuntimeError, match=r"C\+\+ compiler .*cpu"):
        checks.decide_compilation(SamplingSettings(compile="on"), 1, CPU, possible=True)


def test_a_compiler_that_fails_is_no_compiler(monkeypatch):
    def fail(*_arguments, **_options):
        raise RuntimeError("omp.h: No such file or directory")

    monkeypatch.setattr(torch, "compile", lambda *_arguments, **_options: fail)
    can_compile.cache_clear()
    assert not can_compile(CPU)
    can_compile.cache_clear()
