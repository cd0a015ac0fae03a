"""Muon for weights of any shape."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Muon

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


def build_muon(matrices: Iterable[nn.Parameter], config: TrainingConfig) -> Muon:
    """Builds Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks").

    It sees each weight as the matrix (out, everything else) and makes steps that are equally large
    in all directions. Learning rate and decay are on AdamW's scale (Liu et al. 2025, "Muon is
    scalable for LLM training", equation 4).
    """
    return Muon(
        matrices,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )


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
