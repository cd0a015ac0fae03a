"""The optimizer of a module, with schedule, clipping and its state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW

from pipelines.training.config import TrainingConfig
from pipelines.training.muon import MuonWithAdamW, as_matrix, as_weight, muon_weights
from pipelines.training.schedule import learning_rate_factor

Optimizer: TypeAlias = AdamW | MuonWithAdamW


class ModuleOptimizer:
    """Optimizer of a module with schedule and clipping.

    Args:
        module: Every parameter that requires a gradient is updated.
        config: Kind, learning rate and schedule, weight decay, betas and clip_norm.

    Attributes:
        parameters: The updated parameters.

    Raises:
        ValueError: If the module has nothing to train.
    """

    def __init__(self, module: nn.Module, config: TrainingConfig) -> None:
        self.config = config
        self._named = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.parameters = list(self._named.values())
        self._optimizer = build_optimizer(module, config)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step."""
        return float(self._optimizer.param_groups[0]["lr"])

    def gradient_norm(self) -> Tensor:
        """Computes the L2 norm () of the gradient of all parameters."""
        return get_total_norm([p.grad for p in self.parameters if p.grad is not None])

    def step(self, norm: Tensor, step: int, total_steps: int) -> None:
        """Clips the gradients, updates the parameters and clears the gradients.

        Args:
            norm: Result of `gradient_norm`.
            step: 0 for the first step of the training, in [0, total_steps).
            total_steps: Steps of the whole training.
        """
        factor = learning_rate_factor(
            step,
            total_steps=total_steps,
            warmup_fraction=self.config.warmup_fraction,
            final_factor=self.config.final_learning_rate,
        )
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate * factor
        if self.config.clip_norm is not None:
            clip_grads_with_norm_(self.parameters, self.config.clip_norm, norm)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def tensors(self) -> dict[str, Tensor]:
        """Returns the state as `<entry>/<parameter name>`, e.g. `exp_avg/encoder.stem.weight`."""
        return {
            # In the parameter's shape, not its memory format: another device has another.
            f"{entry}/{name}": as_weight(value, parameter)
            if _is_matrix(self._optimizer, parameter)
            else value
            for name, parameter in self._named.items()
            for entry, value in _state_of(self._optimizer, parameter).items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores the result of `tensors`.

        Raises:
            ValueError: If a tensor belongs to no parameter or has another shape than its parameter.
        """
        for key, value in tensors.items():
            entry, _, name = key.partition("/")
            parameter = self._named.get(name)
            if parameter is None or value.shape not in (parameter.shape, torch.Size()):
                raise ValueError(
                    f"the optimizer's state must belong to this model, got {key!r} of shape "
                    f"{tuple(value.shape)}: it was made with another model"
                )
            state = _state_of(self._optimizer, parameter)
            if _is_matrix(self._optimizer, parameter):
                state[entry] = as_matrix(value.to(parameter.device), parameter).clone()
            elif value.shape == parameter.shape:
                # The fused kernel walks raw memory: moments need their parameter's memory format.
                state[entry] = torch.empty_like(parameter.detach()).copy_(value)
            else:
                state[entry] = value.to(parameter.device, copy=True)


def build_optimizer(module: nn.Module, config: TrainingConfig) -> Optimizer:
    """Builds the configured optimizer over every parameter of `module` that requires a gradient.

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


def _adamw(parameters: list[nn.Parameter], config: TrainingConfig) -> AdamW:
    """Builds AdamW (Loshchilov and Hutter 2019).

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


def _is_matrix(optimizer: Optimizer, parameter: nn.Parameter) -> bool:
    return isinstance(optimizer, MuonWithAdamW) and optimizer.is_matrix(parameter)


def _state_of(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    if isinstance(optimizer, MuonWithAdamW):
        return optimizer.state_of(parameter)
    state: dict[str, Any] = optimizer.state[parameter]
    return state
