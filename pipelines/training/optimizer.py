"""The optimizer of a module, with schedule, clipping and its state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW, Optimizer

from pipelines.training.config import TrainingConfig
from pipelines.training.muon import Muon, as_matrix, as_weight, muon_weights
from pipelines.training.schedule import learning_rate_factor


class ModuleOptimizer:
    """Optimizer of every trainable parameter of a module, with schedule and clipping.

    The config's kind, learning rate and schedule, weight decay, betas and clip_norm are used.
    `dtype` is the number format of Muon's matrix products. `parameters` are the updated ones.

    Raises:
        ValueError: If the module has nothing to train.
    """

    def __init__(
        self, module: nn.Module, config: TrainingConfig, dtype: torch.dtype = torch.float32
    ) -> None:
        self.config = config
        self._named = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.parameters = list(self._named.values())
        if not self.parameters:
            raise ValueError("the objective must have at least one parameter to train, got none")
        weights = muon_weights(module) if config.optimizer == "muon" else []
        # Muon takes matrices: these share the weights' memory.
        self._matrices = {w: nn.Parameter(as_matrix(w.detach(), w)) for w in weights}
        others = [parameter for parameter in self.parameters if parameter not in self._matrices]
        self._muon = (
            Muon(
                self._matrices.values(),
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                dtype=dtype,
            )
            if weights
            else None
        )
        self._adamw = _build_adamw(others, config) if others else None

    @property
    def learning_rate(self) -> float:
        """The learning rate that `schedule` has set."""
        return float(self._optimizers[0].param_groups[0]["lr"])

    def gradient_norm(self) -> Tensor:
        """Computes the L2 norm () of the gradient of all parameters."""
        return get_total_norm([p.grad for p in self.parameters if p.grad is not None])

    def schedule(self, step: int, total_steps: int) -> None:
        """Sets the learning rate of step `step`, 0 for the first, in [0, total_steps)."""
        factor = learning_rate_factor(
            step,
            total_steps=total_steps,
            warmup_fraction=self.config.warmup_fraction,
            final_factor=self.config.final_learning_rate,
        )
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.config.learning_rate * factor

    def step(self, norm: Tensor) -> None:
        """Clips the gradients, whose `gradient_norm` is `norm`, and updates the parameters."""
        if self.config.clip_norm is not None:
            clip_grads_with_norm_(self.parameters, self.config.clip_norm, norm)
        self.update()

    def update(self) -> None:
        """Updates the parameters without schedule and clipping, and clears the gradients."""
        for weight, matrix in self._matrices.items():
            matrix.grad = None if weight.grad is None else as_matrix(weight.grad, weight)
        for optimizer in self._optimizers:
            optimizer.step()
        for parameter in (*self.parameters, *self._matrices.values()):
            parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """Returns the state as `<entry>/<parameter name>`, e.g. `exp_avg/encoder.stem.weight`."""
        return {
            # In the parameter's shape, not its memory format: another device has another.
            f"{entry}/{name}": as_weight(value, parameter) if parameter in self._matrices else value
            for name, parameter in self._named.items()
            for entry, value in self._state_of(parameter).items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores the result of `tensors`, which must be of this module's parameters."""
        for key, value in tensors.items():
            entry, _, name = key.partition("/")
            parameter = self._named.get(name)
            if parameter is None or value.shape not in (parameter.shape, torch.Size()):
                raise ValueError(
                    f"the optimizer's state must belong to this model, got {key!r} of shape "
                    f"{tuple(value.shape)}: it was made with another model"
                )
            state = self._state_of(parameter)
            if parameter in self._matrices:
                state[entry] = as_matrix(value.to(parameter.device), parameter).clone()
            elif value.shape == parameter.shape:
                # The fused kernel walks raw memory: moments need their parameter's memory format.
                state[entry] = torch.empty_like(parameter.detach()).copy_(value)
            else:
                state[entry] = value.to(parameter.device, copy=True)

    @property
    def _optimizers(self) -> list[Optimizer]:
        return [optimizer for optimizer in (self._muon, self._adamw) if optimizer is not None]

    def _state_of(self, parameter: nn.Parameter) -> dict[str, Any]:
        matrix = self._matrices.get(parameter)
        optimizer = self._adamw if matrix is None else self._muon
        assert optimizer is not None
        state: dict[str, Any] = optimizer.state[parameter if matrix is None else matrix]
        return state


def _build_adamw(parameters: list[nn.Parameter], config: TrainingConfig) -> AdamW:
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
