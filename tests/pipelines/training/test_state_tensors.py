import pytest
import torch
from torch import nn

from pipelines.training.state_tensors import copy_into, first_non_finite, state_tensors


class WithExtraState(nn.Module):
    def get_extra_state(self):
        return {"seen": 3}


def test_state_tensors_share_memory_with_the_module():
    module = nn.Linear(1, 1)
    state_tensors(module)["bias"].fill_(7)
    assert module.bias.item() == 7


def test_state_tensors_refuse_state_that_is_no_tensor():
    with pytest.raises(TypeError, match="must be tensors, got dict for '_extra_state'"):
        state_tensors(WithExtraState())


def test_copy_into_keeps_the_memory_format_of_the_target():
    target = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
    source = torch.randn(2, 3, 4, 4)
    copy_into({"w": target}, {"w": source}, "the test")
    assert target.equal(source)
    assert target.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({}, "the test .*'w'"),
        ({"w": torch.ones(2), "v": torch.ones(2)}, "the test .*'v'"),
        ({"w": torch.ones(3)}, r"'w' as torch.float32 \(2,\), got torch.float32 \(3,\)"),
        ({"w": torch.ones(2).double()}, r"'w' as torch.float32 \(2,\), got torch.float64 \(2,\)"),
    ],
)
def test_copy_into_refuses_tensors_of_another_model(sources, message):
    with pytest.raises(ValueError, match=message):
        copy_into({"w": torch.zeros(2)}, sources, "the test")


def test_copy_into_writes_nothing_when_it_refuses():
    targets = {"a": torch.zeros(1), "b": torch.zeros(1)}
    with pytest.raises(ValueError, match="another model"):
        copy_into(targets, {"a": torch.ones(1), "b": torch.ones(2)}, "the test")
    assert targets["a"].item() == 0


@pytest.mark.parametrize("bad", [float("nan"), -float("inf")])
def test_first_non_finite_names_the_tensor(bad):
    tensors = {"ids": torch.tensor([1]), "good": torch.ones(2), "bad": torch.tensor([0.0, bad])}
    assert first_non_finite(tensors) == "bad"


def test_first_non_finite_finds_nothing_in_finite_tensors():
    assert first_non_finite({"ids": torch.tensor([1]), "good": torch.ones(2)}) is None
    assert first_non_finite({"ids": torch.tensor([1])}) is None
