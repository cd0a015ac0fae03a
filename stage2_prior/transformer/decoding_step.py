"""Drawing one code of each image of a batch, as one function that can be compiled.

Each operation on one position of a batch is so small that starting it costs more than doing it.
Compiled, all that lies between two matrix products becomes one loop, and attention reads each key
and value once, from a cache in the precision in which they were computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from stage2_prior.config import SamplingSettings
from stage2_prior.sampling.logits import choose, guide, tempered
from stage2_prior.transformer.prepared_weights import PreparedBlock

# Compiled versions of the step: networks times precisions, batch sizes, codebook sizes and kinds of
# settings (with top-k and top-p each value is one) of one process.
_MOST_VERSIONS = 256


@dataclass(frozen=True)
class NextCode:
    """The network's inputs for one code of every image, and what the codes are drawn with."""

    inputs: Tensor
    """float32 (B, E), of the network; (2 B, E) under guidance, the second half without labels."""
    place: Tensor
    """int64 (1,), where in the cache their keys and values are kept."""
    uniform: Tensor
    """float64 (B, 1) in [0, 1)."""
    temperature: Tensor
    """float64 ()."""
    guidance_scale: Tensor
    """float32 ()."""
    heads: list[tuple[Tensor, Tensor]]
    """Weight (E, K) and bias (K,) of the grids that the targets lie in."""
    head: Tensor | None
    """int64 (B or 1, 1), which of them each target takes; None where there is one."""


DecodingStep: TypeAlias = Callable[
    [NextCode, list[PreparedBlock], list[Tensor], SamplingSettings], Tensor
]


def product_plus(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight + bias`, the product in the weight's precision, the sum in float32.

    The cast keeps the compiler from making one `addmm` of it, which would write the bias to memory
    before the product instead of adding it in the loop after it.
    """
    return torch.mm(x.to(weight.dtype), weight).float() + bias.float()


def attend(qkv: Tensor, kept: Tensor, place: Tensor) -> Tensor:
    """Keeps the keys and values of one position and attends with its queries, in float32.

    Args:
        qkv: (B, 3, heads, d), the queries scaled.
        kept: (2, B, length, heads, d), keys and values of the position, to be written, and of all
            that it sees.
        place: int64 (1,), where the position's are kept.

    Returns:
        float32 (B, heads, d).
    """
    new = qkv[:, 1:].transpose(0, 1)[:, :, None]  # (2, B, 1, heads, d)
    kept.index_copy_(2, place, new.to(kept.dtype))
    keys, values = kept.float().transpose(2, 3)  # (B, heads, length, d)
    scores = (qkv[:, 0, :, None] * keys).sum(dim=-1)
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    # Divided at the end: one division per feature instead of one per key.
    seen: Tensor = (weights[..., None] * values).sum(dim=2) / weights.sum(dim=-1)[..., None]
    return seen


def pass_blocks(
    x: Tensor, blocks: list[PreparedBlock], caches: list[Tensor], place: Tensor
) -> Tensor:
    """Passes one position of a batch through all blocks: float32 (B, E), normalised at the end.

    `caches` and `place` as for `attend`, one cache per block.
    """
    for block, kept in zip(blocks, caches, strict=True):
        _, batch, _, heads, head_dim = kept.shape
        qkv = product_plus(block.qkv_bias, F.layer_norm(x, x.shape[-1:]), block.to_qkv)
        seen = attend(qkv.view(batch, 3, heads, head_dim), kept, place)
        x = x + product_plus(block.project_bias, seen.view(batch, heads * head_dim), block.project)
        inner = F.silu(product_plus(block.mlp_in_bias, F.layer_norm(x, x.shape[-1:]), block.mlp_in))
        x = x + product_plus(block.mlp_out_bias, inner, block.mlp_out)
    return F.layer_norm(x, x.shape[-1:])


def decoding_step(
    asked: NextCode,
    blocks: list[PreparedBlock],
    caches: list[Tensor],
    settings: SamplingSettings,
) -> Tensor:
    """Draws the next code of every image.

    Args:
        asked: Inputs, and what the codes are drawn with.
        blocks: The network's.
        caches: Per block (2, B or 2 B, length, heads, d), see `attend`.
        settings: Top-k, top-p, and whether the temperature is 0; its value is taken from `asked`,
            so that compiled code serves them all.

    Returns:
        int64 (B, 1).
    """
    hidden = pass_blocks(asked.inputs, blocks, caches, asked.place)
    guided = len(hidden) > len(asked.uniform)
    drawn = [
        _draw_from(product_plus(bias, hidden, weight), asked, settings, guided=guided)
        for weight, bias in asked.heads
    ]
    taken = drawn[0]
    if asked.head is None:
        return taken
    for number, others in enumerate(drawn[1:], start=1):
        taken = torch.where(asked.head == number, others, taken)
    return taken


def _draw_from(
    logits: Tensor, asked: NextCode, settings: SamplingSettings, *, guided: bool
) -> Tensor:
    """From float32 logits (B or 2 B, K) to codes int64 (B, 1)."""
    if guided:
        conditional, unconditional = logits.chunk(2)
        logits = guide(conditional, unconditional, asked.guidance_scale)
    if settings.temperature:
        logits = tempered(logits.to(asked.uniform), asked.temperature)
    return choose(
        logits,
        asked.uniform[:, 0],
        temperature=1.0 if settings.temperature else 0.0,
        top_k=settings.top_k,
        top_p=settings.top_p,
    )[:, None]


@cache
def compiled_decoding_step() -> DecodingStep:
    """`decoding_step`, compiled where it is first called.

    Once for each network, precision, batch size, codebook size and kind of settings (top-k and
    top-p count with their values); the cache's length, temperature and guidance scale may vary.
    """
    compiled: DecodingStep = torch.compile(decoding_step, dynamic=False)

    def step(
        asked: NextCode,
        blocks: list[PreparedBlock],
        caches: list[Tensor],
        settings: SamplingSettings,
    ) -> Tensor:
        for kept in caches:
            torch._dynamo.maybe_mark_dynamic(kept, 2)
        # After as many versions torch would silently stop compiling: by default 8, which a
        # comparison of a few priors reaches.
        with torch._dynamo.config.patch(recompile_limit=_MOST_VERSIONS):
            return compiled(asked, blocks, caches, settings)

    return step
