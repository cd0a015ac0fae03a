import numpy as np
import pytest
import torch
from torch import nn

from pipelines.training.config import TrainingConfig
from pipelines.training.optimizer import ModuleOptimizer, build_optimizer

CONFIG = TrainingConfig(learning_rate=0.1, weight_decay=0.2, betas=(0.8, 0.95))


def adamw_in_numpy(value, gradients, *, weight_decay):
    """Loshchilov and Hutter 2019, algorithm 2, with CONFIG's settings."""
    (beta1, beta2), rate = CONFIG.betas, CONFIG.learning_rate
    value = value.astype(np.float64)
    first = second = np.zeros_like(value)
    for t, gradient in enumerate(gradients, start=1):
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        direction = first / (1 - beta1**t) / (np.sqrt(second / (1 - beta2**t)) + 1e-8)
        value = value - rate * (direction + weight_decay * value)
    return value


def train(module, optimizer, gradients):
    for weight_gradient, bias_gradient in gradients:
        module.weight.grad, module.bias.grad = weight_gradient.clone(), bias_gradient.clone()
        optimizer.step()


def random_gradients(count):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(2, 3, generator=generator), torch.randn(2, generator=generator))
        for _ in range(count)
    ]


@pytest.mark.parametrize(("name", "place", "weight_decay"), [("weight", 0, 0.2), ("bias", 1, 0.0)])
def test_optimizer_is_adamw_that_decays_matrices_only(name, place, weight_decay):
    module = nn.Linear(3, 2)
    start = module.get_parameter(name).detach().numpy().copy()
    gradients = random_gradients(6)
    train(module, build_optimizer(module, CONFIG), gradients)
    expected = adamw_in_numpy(
        start, [pair[place].numpy() for pair in gradients], weight_decay=weight_decay
    )
    # float32 against float64 over six steps of size 0.1.
    np.testing.assert_allclose(module.get_parameter(name).detach().numpy(), expected, atol=1e-6)


def test_optimizer_leaves_frozen_parameters_alone():
    module = nn.Linear(3, 2)
    module.weight.requires_grad_(False)
    groups = build_optimizer(module, CONFIG).param_groups
    assert [parameter is module.bias for group in groups for parameter in group["params"]] == [True]


def test_optimizer_refuses_a_module_without_parameters():
    with pytest.raises(ValueError, match="at least one parameter to train, got none"):
        build_optimizer(nn.ReLU(), CONFIG)


def test_optimizer_tensors_take_on_the_memory_format_of_their_parameter():
    module = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    optimizer = ModuleOptimizer(module, CONFIG)
    moments = torch.randn(3, 2, 3, 3)
    optimizer.load({"exp_avg/weight": moments})
    loaded = optimizer.tensors()["exp_avg/weight"]
    assert loaded.equal(moments)
    assert loaded.stride() == module.weight.stride()


@pytest.mark.parametrize(
    "tensors", [{"exp_avg/other": torch.ones(2)}, {"exp_avg/weight": torch.ones(5)}]
)
def test_optimizer_tensors_of_another_model_are_refused(tensors):
    optimizer = ModuleOptimizer(nn.Linear(3, 2), CONFIG)
    with pytest.raises(ValueError, match="got 'exp_avg/"):
        optimizer.load(tensors)


def test_marked_parameters_do_not_decay():
    module = nn.Linear(3, 2, bias=False)
    module.weight.no_weight_decay = True
    before = module.weight.detach().clone()
    optimizer = build_optimizer(module, TrainingConfig(weight_decay=0.5))
    module.weight.grad = torch.zeros_like(module.weight)
    optimizer.step()  # without a gradient, decay is all that could move it
    torch.testing.assert_close(module.weight.detach(), before, rtol=0, atol=0)
