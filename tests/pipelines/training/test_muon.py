"""Muon on weights of any shape, beside AdamW for the rest."""

import numpy as np
import pytest
import torch
from torch import nn
from toy_tasks import NetTask, small_config

from pipelines.training import muon
from pipelines.training.config import TrainingConfig
from pipelines.training.muon import Muon, muon_weights, orthogonalised
from pipelines.training.optimizer import ModuleOptimizer
from pipelines.training.precision import Precision
from pipelines.training.train_step import TrainStep

CONFIG = TrainingConfig(optimizer="muon", learning_rate=0.1, weight_decay=0.2, clip_norm=None)


class Network(nn.Module):
    """One of everything that an optimizer meets."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 6)
        self.conv = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(6, 2)
        self.placed = nn.Linear(2, 2, bias=False)
        self.placed.weight.no_weight_decay = True
        self.frozen = nn.Linear(2, 2, bias=False).requires_grad_(False)
        self.gain = nn.Parameter(torch.ones(3))
        self.stem = nn.Sequential(nn.Conv2d(1, 3, 3))
        self.heads = nn.ModuleList([nn.Linear(2, 7), nn.Linear(2, 5)])
        self.outer_layers = (self.stem, self.heads)


def set_gradients(module, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.requires_grad:
            gradient = torch.randn(parameter.shape, generator=generator)
            parameter.grad = gradient.to(memory_format=_format_of(parameter))


def _format_of(parameter):
    last = parameter.ndim == 4 and not parameter.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def muon_in_numpy(weight, gradients):
    """Jordan et al. 2024 with Nesterov momentum 0.95 and five Newton-Schulz iterations.

    The step has the root mean square of AdamW's: 0.2 sqrt(max(rows, columns)) times the learning
    rate (Liu et al. 2025, equation 4).
    """
    shape = weight.shape
    weight = weight.reshape(len(weight), -1).astype(np.float64)
    average = np.zeros_like(weight)
    for gradient in gradients:
        gradient = gradient.reshape(weight.shape).astype(np.float64)
        average = 0.95 * average + 0.05 * gradient
        x = 0.05 * gradient + 0.95 * average
        x /= np.linalg.norm(x)
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        scale = 0.2 * max(weight.shape) ** 0.5
        weight = weight * (1 - 0.1 * 0.2) - 0.1 * scale * x
    return weight.reshape(shape)


@pytest.mark.parametrize(
    ("name", "memory_format"),
    [("conv", torch.channels_last), ("linear", torch.contiguous_format)],
)
def test_muon_is_that_of_the_reference(name, memory_format):
    torch.manual_seed(0)
    module = Network().to(memory_format=memory_format)
    weight = module.get_submodule(name).weight
    start, gradients = weight.detach().numpy().copy(), []
    optimizer = ModuleOptimizer(module, CONFIG)
    for step in range(4):
        set_gradients(module, step)
        gradients.append(weight.grad.numpy().copy())
        optimizer.update()
    np.testing.assert_allclose(weight.detach(), muon_in_numpy(start, gradients), atol=1e-5)
    assert np.abs(start - weight.detach().numpy()).max() > 0.04  # or the above would show nothing


def test_bfloat16_is_that_of_torch():
    torch.manual_seed(0)
    ours, theirs = (
        [nn.Parameter(torch.randn(shape)) for shape in ((6, 4), (4, 6), (6, 4))] for _ in range(2)
    )
    settings = {"lr": 0.1, "weight_decay": 0.2}
    optimizers = (
        Muon(ours, **settings, dtype=torch.bfloat16),
        torch.optim.Muon(theirs, **settings, adjust_lr_fn="match_rms_adamw"),
    )
    for mine, other in zip(ours, theirs, strict=True):
        other.data.copy_(mine)
        mine.grad = torch.randn_like(mine)
        other.grad = mine.grad.clone()
    for optimizer in optimizers:
        optimizer.step()
    for mine, other in zip(ours, theirs, strict=True):
        # Two rounding errors of bfloat16, of a step of 0.2 sqrt(6) 0.1 at most.
        torch.testing.assert_close(mine, other, rtol=0, atol=5e-4)


def test_muon_takes_the_weights_of_hidden_linear_maps_and_convolutions_only():
    module = Network()
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    assert {names[id(w)] for w in muon_weights(module)} == {"conv.weight", "linear.weight"}


def test_everything_else_moves_as_under_adamw_alone():
    module, twin = Network(), Network()
    twin.load_state_dict(module.state_dict())
    muon = ModuleOptimizer(module, CONFIG)
    adamw = ModuleOptimizer(twin, TrainingConfig(learning_rate=0.1, weight_decay=0.2))
    for step in range(3):
        for part, optimizer in ((module, muon), (twin, adamw)):
            set_gradients(part, step)
            optimizer.update()
    moved = dict(twin.named_parameters())
    equal = {n for n, p in module.named_parameters() if torch.equal(p, moved[n])}
    assert equal == moved.keys() - {"conv.weight", "linear.weight"}


def test_learning_rate_of_zero_reaches_every_parameter_and_gradients_are_cleared():
    module = Network()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = ModuleOptimizer(module, CONFIG)
    set_gradients(module, 0)
    optimizer.schedule(9, total_steps=9)  # where the cosine is over
    optimizer.step(optimizer.gradient_norm())
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_weights_without_a_gradient_stay():
    module = Network()
    before = module.conv.weight.detach().clone()
    optimizer = ModuleOptimizer(module, CONFIG)
    set_gradients(module, 0)
    module.conv.weight.grad = None
    optimizer.update()
    assert torch.equal(module.conv.weight, before)


def advance(module, optimizer, steps):
    """Makes `steps` of 6 steps with the gradients of `set_gradients`."""
    for step in steps:
        set_gradients(module, step)
        optimizer.schedule(step, total_steps=6)
        optimizer.step(optimizer.gradient_norm())


def test_optimizer_tensors_have_the_shape_of_the_weights_whatever_the_memory_format():
    module = Network().to(memory_format=torch.channels_last)
    optimizer = ModuleOptimizer(module, CONFIG)
    set_gradients(module, 0)
    gradient = module.conv.weight.grad.clone()
    advance(module, optimizer, [0])
    momentum = optimizer.tensors()["momentum_buffer/conv.weight"]
    torch.testing.assert_close(momentum, 0.05 * gradient)  # the average's first step
    resumed = ModuleOptimizer(Network(), CONFIG)
    resumed.load(optimizer.tensors())
    assert torch.equal(resumed.tensors()["momentum_buffer/conv.weight"], momentum)


def test_optimizer_tensors_continue_where_they_were_taken():
    module, other = (Network().to(memory_format=torch.channels_last) for _ in range(2))
    optimizer, resumed = (ModuleOptimizer(part, CONFIG) for part in (module, other))
    advance(module, optimizer, range(3))
    other.load_state_dict(module.state_dict())
    resumed.load({name: value.clone() for name, value in optimizer.tensors().items()})
    advance(module, optimizer, range(3, 6))
    advance(other, resumed, range(3, 6))
    expected = dict(module.named_parameters())
    assert all(torch.equal(p, expected[name]) for name, p in other.named_parameters())


@pytest.mark.parametrize("module", [nn.Linear(3, 2, bias=False), nn.LayerNorm(3)])
def test_a_module_may_have_parameters_of_one_kind_only(module):
    before = module.weight.detach().clone()
    optimizer = ModuleOptimizer(module, CONFIG)
    module.weight.grad = torch.ones_like(module.weight)
    optimizer.update()
    assert not torch.equal(module.weight, before)
    assert {name.partition("/")[0] for name in optimizer.tensors()} == (
        {"momentum_buffer"} if module.weight.ndim == 2 else {"step", "exp_avg", "exp_avg_sq"}
    )


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_of_a_training_have_its_number_format(monkeypatch, name, dtype):
    found = set()

    def seen(matrices):
        found.add(matrices.dtype)
        return orthogonalised(matrices)

    monkeypatch.setattr(muon, "orthogonalised", seen)
    precision = Precision(name=name, reason="it was asked for")
    config = small_config(optimizer="muon")
    TrainStep(NetTask(), config, torch.device("cpu"), precision, seed=0).step(0)
    assert found == {dtype}
