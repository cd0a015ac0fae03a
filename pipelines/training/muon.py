"""Muon for weights of any shape, with AdamW for all other parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon

from pipelines.training.config import TrainingConfig


def muon_weights(module: nn.Module) -> list[nn.Parameter]:
    """Returns the weights of hidden linear maps and convolutions.

    Its authors leave embeddings, the first convolution, the output layer, biases and gains to AdamW
    (Jordan et al. 2024; README of KellerJordan/Muon). A module names those of its layers that read
    the input or return the output in an attribute `outer_layers`. A weight with a true attribute
    `no_weight_decay` is left out too: its loss says where it belongs.
    """
    outer = {
        layer
        for part in module.modules()
        for outermost in getattr(part, "outer_layers", ())
        for layer in outermost.modules()
    }
    weights: list[nn.Parameter] = []
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d) and part not in outer:
            weight: nn.Parameter = part.weight  # type: ignore[assignment]
            if weight.requires_grad and not getattr(weight, "no_weight_decay", False):
                weights.append(weight)
    return weights


class MuonWithAdamW:
    """Muon for some weights of a module and AdamW for the others, as one optimizer.

    Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") sees each
    weight as the matrix (out, everything else) and makes steps that are equally large in all
    directions. Learning rate and decay are on AdamW's scale (Liu et al. 2025, "Muon is scalable for
    LLM training", equation 4). torch's class takes matrices only: it is given views that share the
    weights' memory.

    Args:
        weights: Weights for Muon, of two or more dimensions.
        adamw: Optimizer of all other parameters; None without any.
        config: Learning rate and weight decay.
    """

    def __init__(
        self, weights: list[nn.Parameter], adamw: AdamW | None, config: TrainingConfig
    ) -> None:
        self._matrix_of = {w: nn.Parameter(as_matrix(w.detach(), w)) for w in weights}
        self._muon = Muon(
            self._matrix_of.values(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adamw = adamw

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Parameter groups of both optimizers."""
        return self._muon.param_groups + (self._adamw.param_groups if self._adamw else [])

    def is_matrix(self, parameter: nn.Parameter) -> bool:
        """Returns whether Muon updates a parameter, so that its state is a matrix."""
        return parameter in self._matrix_of

    def state_of(self, parameter: nn.Parameter) -> dict[str, Any]:
        """Returns the optimizer state of a parameter, which may be written to."""
        matrix = self._matrix_of.get(parameter)
        optimizer = self._adamw if matrix is None else self._muon
        state: dict[str, Any] = optimizer.state[parameter if matrix is None else matrix]  # type: ignore[union-attr]
        return state

    @torch.no_grad()
    def step(self) -> None:
        """Makes one step of both optimizers."""
        for weight, matrix in self._matrix_of.items():
            matrix.grad = None if weight.grad is None else as_matrix(weight.grad, weight)
        self._muon.step()  # type: ignore[no-untyped-call]
        if self._adamw:
            self._adamw.step()

    def zero_grad(self) -> None:
        """Sets all gradients to None."""
        for weight in self._matrix_of:
            weight.grad = None
        if self._adamw:
            self._adamw.zero_grad()


def as_matrix(tensor: Tensor, weight: Tensor) -> Tensor:
    """Reshapes (out, ...) to (out, everything else), in the memory order of `weight`."""
    return (tensor.permute(0, 2, 3, 1) if _is_channels_last(weight) else tensor).flatten(1)


def as_weight(matrix: Tensor, weight: Tensor) -> Tensor:
    """Reshapes a matrix to the shape of `weight`; the inverse of `as_matrix`."""
    if not _is_channels_last(weight):
        return matrix.view(weight.shape)
    rows, channels, height, width = weight.shape
    return matrix.view(rows, height, width, channels).permute(0, 3, 1, 2)


def _is_channels_last(weight: Tensor) -> bool:
    return not weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last)
