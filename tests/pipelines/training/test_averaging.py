from contextlib import suppress

import pytest
import torch
from torch import nn

from pipelines.training.averaging import WeightAverage, ramped_decay


class State(nn.Module):
    """A parameter, a floating-point buffer that is replaced, and an integer buffer."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), value))
        self.register_buffer("running", torch.full((2,), value))
        self.register_buffer("count", torch.tensor(int(value)))

    def set(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
        self.running = torch.full((2,), value)
        self.count = torch.tensor(int(value))


@pytest.mark.parametrize(("updates", "expected"), [(8, 0.5), (10**6, 0.999)])
def test_ramped_decay_grows_to_the_configured_one(updates, expected):
    assert ramped_decay(0.999, updates) == pytest.approx(expected)


def test_average_of_constant_weights_approaches_them_by_the_product_of_decays():
    module = State(0.0)
    average = WeightAverage(module, decay=0.3)
    module.set(1.0)
    for updates in range(4):
        average.update(module, updates)
    # Decays 1/10, 2/11, 3/12 and then 0.3; the distance to the weights shrinks by each.
    expected = 1 - 1 / 10 * 2 / 11 * 3 / 12 * 0.3
    torch.testing.assert_close(average.tensors["weight"], torch.full((3,), expected))
    torch.testing.assert_close(average.tensors["running"], torch.full((2,), expected))


def test_average_copies_integer_buffers():
    module = State(1.0)
    average = WeightAverage(module, decay=0.9)
    module.set(5.0)
    average.update(module, updates=100)
    assert average.tensors["count"].item() == 5


def test_average_with_a_decay_of_zero_is_the_last_weights():
    module = State(1.0)
    average = WeightAverage(module, decay=0.0)
    module.set(0.1)
    average.update(module, updates=100)
    assert average.tensors["weight"].equal(module.weight)


def test_average_does_not_share_memory_with_the_module():
    module = State(1.0)
    average = WeightAverage(module, decay=0.9)
    module.set(5.0)
    assert average.tensors["weight"].tolist() == [1.0, 1.0, 1.0]


def test_swapped_into_lends_the_averaged_state():
    module = State(1.0)
    average = WeightAverage(module, decay=0.9)
    module.set(5.0)
    with average.swapped_into(module):
        assert module.weight.tolist() == [1.0, 1.0, 1.0]
        assert module.count.item() == 1


def test_swapped_into_puts_the_own_state_back_after_an_error():
    module = State(1.0)
    average = WeightAverage(module, decay=0.9)
    own = torch.rand(3)
    with torch.no_grad():
        module.weight.copy_(own)
    with suppress(ZeroDivisionError), average.swapped_into(module):
        module.set(9.0)  # what happens to the state inside the block is undone as well
        raise ZeroDivisionError
    assert module.weight.equal(own)
    assert module.running.tolist() == [1.0, 1.0]
