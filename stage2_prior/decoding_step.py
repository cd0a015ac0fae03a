"""One position through a transformer's blocks, as one function that can be compiled.

Each operation on one position of a batch is so small that starting it costs more than doing it.
Compiled, all that lies between two matrix products becomes one loop, and attention reads each key
and value once, from a cache in the precision in which they were computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from stage2_prior.transformer import Block

# Compiled versions of the step: networks times precisions times batch sizes of one process.
_MOST_VERSIONS = 256

DecodingStep: TypeAlias = Callable[[Tensor, "list[PreparedBlock]", list[Tensor], Tensor], Tensor]


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


def product_plus(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight + bias`, the product in the weight's precision, the sum in float32.

    The cast keeps the compiler from making one `addmm` of it, which would write the bias to memory
    before the product instead of adding it in the loop after it.
    """
    return torch.mm(x.to(weight.dtype), weight).float() + bias.float()


def decoding_step(
    x: Tensor, blocks: list[PreparedBlock], caches: list[Tensor], place: Tensor
) -> Tensor:
    """Passes one position of a batch through all blocks and keeps its keys and values.

    Args:
        x: float32 (B, E).
        blocks: The weights, of one dtype.
        caches: Per block (2, B, heads, length, d), keys and values of the position, to be written,
            and of all that it sees.
        place: int64 (1,), where in the cache the position is kept.

    Returns:
        float32 (B, E), normalised.
    """
    for block, kept in zip(blocks, caches, strict=True):
        _, batch, heads, _, head_dim = kept.shape
        normalised = F.layer_norm(x, x.shape[-1:])
        qkv = product_plus(block.qkv_bias, normalised, block.to_qkv)
        qkv = qkv.view(batch, 3, heads, head_dim)
        new = qkv[:, 1:].transpose(0, 1)[:, :, :, None]  # (2, B, heads, 1, d)
        kept.index_copy_(3, place, new.to(kept.dtype))
        query, keys, values = qkv[:, 0], kept[0].float(), kept[1].float()
        weights = (query[:, :, None] * keys).sum(dim=-1).softmax(dim=-1)
        seen = (weights[..., None] * values).sum(dim=2).view(batch, heads * head_dim)
        x = x + product_plus(block.project_bias, seen, block.project)
        inner = F.silu(product_plus(block.mlp_in_bias, F.layer_norm(x, x.shape[-1:]), block.mlp_in))
        x = x + product_plus(block.mlp_out_bias, inner, block.mlp_out)
    return F.layer_norm(x, x.shape[-1:])


@cache
def compiled_decoding_step() -> DecodingStep:
    """`decoding_step`, compiled where it is first called.

    Once for each network, precision and batch size; the cache's length may vary where it is marked
    as dynamic.
    """
    compiled: DecodingStep = torch.compile(decoding_step, dynamic=False)

    def step(x: Tensor, blocks: list[PreparedBlock], caches: list[Tensor], place: Tensor) -> Tensor:
        # After as many versions torch would silently stop compiling: by default 8, which a
        # comparison of a few priors reaches.
        with torch._dynamo.config.patch(recompile_limit=_MOST_VERSIONS):
            return compiled(x, blocks, caches, place)

    return step


@cache
def can_compile(device: torch.device) -> bool:
    """Whether `torch.compile` works here: a C++ compiler is there and fit, or Triton on a GPU.

    Found out by compiling a line, which takes a second or two the first time.
    """
    if device.type not in ("cpu", "cuda"):
        return False
    compiled = torch.compile(_one_line, dynamic=False)
    try:
        compiled(torch.ones(8, device=device))
    except (RuntimeError, OSError):
        return False
    return True


def _one_line(x: Tensor) -> Tensor:
    return x.sin() + 1
