"""A transformer's weights in the form its cached decoding uses, made once for all batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stage2_prior.grids import GridSpec
from stage2_prior.transformer.blocks import Block


@dataclass(frozen=True)
class PreparedBlock:
    """One block's weights, norms and scales folded in; matrices are (in, out)."""

    to_qkv: Tensor
    """(E, 3 E)."""
    qkv_bias: Tensor
    """(3 E,)."""
    project: Tensor
    """(E, E)."""
    project_bias: Tensor
    """(E,)."""
    mlp_in: Tensor
    """(E, 4 E)."""
    mlp_in_bias: Tensor
    """(4 E,)."""
    mlp_out: Tensor
    """(4 E, E)."""
    mlp_out_bias: Tensor
    """(E,)."""


@dataclass(frozen=True, kw_only=True)
class PreparedWeights:
    """Everything about the network that does not depend on the batch."""

    grids: tuple[GridSpec, ...]
    """Shape and codebook size of each code grid."""
    grid_of: Tensor
    """int64 (L,), the grid of each position."""
    num_heads: int
    """Attention heads."""
    dtype: torch.dtype
    """Precision of the matrix products."""
    blocks: list[PreparedBlock]
    """In `dtype`."""
    heads: list[tuple[Tensor, Tensor]]
    """Per grid (E, K_i) and (K_i,), the last norm folded in, in `dtype`."""
    labels: Tensor
    """(num_labels, E)."""
    codes: Tensor
    """(sum of K_i + 1, E), all code embeddings, the start vector in the last row."""
    first_row: Tensor
    """int64 (L + 1,), the row of code 0 at each position; the last is the start vector's."""
    source_positions: Tensor | None
    """(L + 1, E), zeros for the start in the last row; None for a prior of one order."""
    target_positions: Tensor
    """(L, E)."""


def fold_norm(norm: nn.LayerNorm, linear: nn.Module) -> tuple[Tensor, Tensor]:
    """Folds a norm's scale and shift into the linear layer after it: weight (in, out), bias (out,).

    W (gamma * x + beta) + b = (W * gamma) x + (W beta + b).
    """
    assert isinstance(linear, nn.Linear)
    weight = linear.weight * norm.weight
    bias = linear.weight @ norm.bias
    return weight.t(), bias if linear.bias is None else bias + linear.bias


def prepare_block(block: Block, dtype: torch.dtype) -> PreparedBlock:
    """Prepares the weights of `block` for inference, in `dtype`."""
    qkv, qkv_bias = fold_norm(block.attention_norm, block.attention.to_qkv)
    width = qkv.shape[0]
    scale = qkv.new_ones(3 * width)
    scale[:width] = (width // block.attention.num_heads) ** -0.5
    mlp_in, mlp_in_bias = fold_norm(block.mlp_norm, block.mlp_in)
    tensors = (
        qkv * scale,
        qkv_bias * scale,
        block.attention.project.weight.t(),
        block.attention.project.bias,
        mlp_in,
        mlp_in_bias,
        block.mlp_out.weight.t(),
        block.mlp_out.bias,
    )
    return PreparedBlock(*(tensor.to(dtype).contiguous() for tensor in tensors))


class WeightsVersion:
    """Detects changes of a module's weights.

    PyTorch counts every change of a tensor in place, except of tensors made in inference mode,
    which count as changed. A replaced tensor has another address while the old one is held.
    """

    def __init__(self, module: nn.Module) -> None:
        parameters = list(module.parameters())
        self._uncounted = any(p.is_inference() for p in parameters)
        self._seen = [] if self._uncounted else [(p.detach(), p._version) for p in parameters]

    def is_current(self, module: nn.Module) -> bool:
        """Whether no parameter was written to or replaced since."""
        now = list(module.parameters())
        if self._uncounted or any(p.is_inference() for p in now):
            return False
        return len(now) == len(self._seen) and all(
            p.data_ptr() == seen.data_ptr() and p.device == seen.device and p._version == version
            for p, (seen, version) in zip(now, self._seen, strict=True)
        )
