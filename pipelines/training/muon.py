"""Muon for weights of any shape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_MOMENTUM = 0.95
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_EPSILON = 1e-7
_ADAMW_RMS = 0.2  # root mean square of AdamW's steps at learning rate 1


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


class Muon(Optimizer):
    """Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks").

    Makes steps that are equally large in all directions of a matrix. Learning rate and decay are on
    AdamW's scale (Liu et al. 2025, "Muon is scalable for LLM training", equation 4).

    The same as `torch.optim.Muon`, but in the number format of the training: that one always
    iterates in bfloat16, which took 3 of a step's 4 seconds on a CPU without AVX512. Matrices of
    one shape are orthogonalised together.

    Args:
        matrices: Parameters (rows, columns).
        lr: Learning rate.
        weight_decay: Decoupled weight decay.
        dtype: Number format of the matrix products.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        *,
        lr: float,
        weight_decay: float,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Updates all matrices that have a gradient."""
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[tuple(matrix.shape)].append(matrix)
            for shape, matrices in by_shape.items():
                updates = torch.stack([self._momentum(matrix) for matrix in matrices])
                updates = orthogonalised(updates.to(self._dtype)).to(matrices[0].dtype)
                scale = _ADAMW_RMS * max(shape) ** 0.5
                for matrix, update in zip(matrices, updates, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(update, alpha=-group["lr"] * scale)

    def _momentum(self, matrix: Tensor) -> Tensor:
        """Averages the gradient into the state, and returns Nesterov's combination of both."""
        assert matrix.grad is not None
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        average = state["momentum_buffer"].lerp_(matrix.grad, 1 - _MOMENTUM)
        return matrix.grad.lerp(average, _MOMENTUM)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Moves the singular values of matrices (N, rows, columns) near 1, by Newton-Schulz iterations.

    Jordan et al. 2024: a quintic that ends in about [0.7, 1.2] after five iterations.
    """
    rows, columns = matrices.shape[1:]
    x = matrices.mT if rows > columns else matrices
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=_EPSILON)
    a, b, c = _QUINTIC
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if rows > columns else x


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
