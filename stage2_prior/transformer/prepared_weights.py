"""A transformer's weights as its sampler wants them, made once for all batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from stage2_prior.transformer.prior import Block, TransformerPrior


@dataclass(frozen=True)
class PreparedBlock:
    """One block's weights with what surrounds them folded in; matrices are (in, out)."""

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


def fold_norm(norm: nn.LayerNorm, linear: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (in, out) and bias (out,) that do to the bare normalised x what norm and linear do.

    W (gamma * x + beta) + b = (W * gamma) x + (W beta + b).
    """
    assert isinstance(linear, nn.Linear)
    weight = linear.weight * norm.weight
    bias = linear.weight @ norm.bias
    return weight.t(), bias if linear.bias is None else bias + linear.bias


def prepare_block(block: Block, dtype: torch.dtype) -> PreparedBlock:
    """The weights of `block` for inference, in `dtype`."""
    qkv, qkv_bias = fold_norm(block.attention_norm, block.attention.to_qkv)
    width = qkv.shape[0]
    scale = torch.ones(3 * width, device=qkv.device)
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


@dataclass(frozen=True)
class PreparedWeights:
    """Everything about the network that does not depend on what is drawn."""

    blocks: list[PreparedBlock]
    """In the products' precision."""
    heads: list[tuple[Tensor, Tensor]]
    """Per grid (E, K_i) and (K_i,), the last norm folded in, in the products' precision."""
    table: Tensor
    """float32 (sum of K_i + 1, E); see `TransformerPrior.code_table`."""
    first_row: Tensor
    """int64 (L + 1,)."""
    source_places: Tensor | None
    """float32 (L + 1, E) or None; see `TransformerPrior.place_tables`."""
    target_places: Tensor
    """float32 (L, E)."""


def prepare_weights(prior: TransformerPrior, dtype: torch.dtype) -> PreparedWeights:
    """The weights of `prior` as they are now, for matrix products in `dtype`."""
    heads = [fold_norm(prior.norm, head) for head in prior.heads]
    return PreparedWeights(
        [prepare_block(block, dtype) for block in prior.blocks],
        [(weight.to(dtype).contiguous(), bias.to(dtype)) for weight, bias in heads],
        *prior.code_table(),
        *prior.place_tables(),
    )


class WeightsSeen:
    """Tells whether a module's weights are still those that were seen.

    PyTorch counts every change of a tensor in place (but of tensors made in inference mode, of
    which nothing can be told), and another tensor has another address while the old one is held on
    to.
    """

    def __init__(self, module: nn.Module) -> None:
        parameters = list(module.parameters())
        self._countless = any(p.is_inference() for p in parameters)
        self._seen = [] if self._countless else [(p.detach(), p._version) for p in parameters]

    def unchanged(self, module: nn.Module) -> bool:
        """Whether nothing has been written to or put in the place of a parameter since."""
        now = list(module.parameters())
        if self._countless or any(p.is_inference() for p in now):
            return False
        return len(now) == len(self._seen) and all(
            p.data_ptr() == seen.data_ptr() and p.device == seen.device and p._version == version
            for p, (seen, version) in zip(now, self._seen, strict=True)
        )
