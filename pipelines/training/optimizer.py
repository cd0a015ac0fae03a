"""The optimizer of a module, and its state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from pipelines.training.config import TrainingConfig
from pipelines.training.muon import MuonWithAdamW, as_matrix, as_weight, muon_weights

StageOptimizer: TypeAlias = AdamW | MuonWithAdamW


def build_optimizer(module: nn.Module, config: TrainingConfig) -> StageOptimizer:
    """The configured optimizer over every parameter of `module` that wants a gradient.

    Raises:
        ValueError: If the module has nothing to train.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("the objective must have at least one parameter to train, got none")
    weights = muon_weights(module) if config.optimizer == "muon" else []
    if not weights:
        return _adamw(parameters, config)
    taken = set(weights)
    others = [parameter for parameter in parameters if parameter not in taken]
    return MuonWithAdamW(weights, _adamw(others, config) if others else None, config)


def optimizer_tensors(optimizer: StageOptimizer, module: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as `<entry>/<parameter name>`, e.g. `exp_avg/encoder.stem.weight`."""
    return {
        # As the parameter's shape says, whatever its order in memory: another device has another.
        f"{entry}/{name}": as_weight(value, parameter)
        if _is_matrix(optimizer, parameter)
        else value
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
        for entry, value in _state_of(optimizer, parameter).items()
    }


def load_optimizer_tensors(
    optimizer: StageOptimizer, module: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Puts back what `optimizer_tensors` gave.

    Raises:
        ValueError: If a tensor belongs to no parameter or has another shape than its parameter.
    """
    parameters = dict(module.named_parameters())
    for key, value in tensors.items():
        entry, _, name = key.partition("/")
        parameter = parameters.get(name)
        if parameter is None or value.shape not in (parameter.shape, torch.Size()):
            raise ValueError(
                f"the optimizer's state must belong to this model, got {key!r} of shape "
                f"{tuple(value.shape)}: it was made with another model"
            )
        state = _state_of(optimizer, parameter)
        if _is_matrix(optimizer, parameter):
            state[entry] = as_matrix(value.to(parameter.device), parameter).clone()
        elif value.shape == parameter.shape:
            # The fused kernel walks raw memory: the moments need their parameter's memory format.
            state[entry] = torch.empty_like(parameter.detach()).copy_(value)
        else:
            state[entry] = value.to(parameter.device, copy=True)


def _adamw(parameters: list[nn.Parameter], config: TrainingConfig) -> AdamW:
    """AdamW (Loshchilov and Hutter 2019).

    Matrices, convolution kernels and embeddings decay; biases, gains and other vectors do not,
    because shrinking them limits no capacity, and neither does a parameter with a true attribute
    `no_weight_decay` (a codebook: its loss says where it belongs). The fused kernel is the fastest
    on every device (on a CPU by 2 to 3 times) and, being elementwise, as deterministic as the
    others.
    """
    decays = [p.ndim >= 2 and not getattr(p, "no_weight_decay", False) for p in parameters]
    both = list(zip(parameters, decays, strict=True))
    groups = [
        {"params": [p for p, decay in both if decay], "weight_decay": config.weight_decay},
        {"params": [p for p, decay in both if not decay], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def _is_matrix(optimizer: StageOptimizer, parameter: nn.Parameter) -> bool:
    return isinstance(optimizer, MuonWithAdamW) and optimizer.is_matrix(parameter)


def _state_of(optimizer: StageOptimizer, parameter: nn.Parameter) -> dict[str, Any]:
    if isinstance(optimizer, MuonWithAdamW):
        return optimizer.state_of(parameter)
    state: dict[str, Any] = optimizer.state[parameter]
    return state
