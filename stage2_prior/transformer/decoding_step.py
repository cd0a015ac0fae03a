"""Sampling one code of each image of a batch, as one function that can be compiled.

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

from stage2_prior.sampling.logits import guide_and_sample, select_logits
from stage2_prior.sampling.settings import SamplingSettings
from stage2_prior.sampling.stepper import SamplingRule
from stage2_prior.transformer.cached_network import CachedTransformer
from stage2_prior.transformer.prepared_weights import PreparedBlock

# Compiled versions of the step: networks times precisions, batch sizes, codebook sizes and kinds of
# settings (with top-k and top-p each value is one) of one process.
_MAX_VERSIONS = 256


@dataclass(frozen=True)
class StepInput:
    """The network's inputs for one code of every image, and how the codes are sampled."""

    inputs: Tensor
    """float32 (B, E), of the network; (2 B, E) under guidance, the second half without labels."""
    position: Tensor
    """int64 (1,), the cache's position for their keys and values."""
    uniform: Tensor
    """float64 (B,) in [0, 1)."""
    temperature: Tensor
    """float64 ()."""
    guidance_scale: Tensor
    """float32 ()."""
    heads: list[tuple[Tensor, Tensor]]
    """Weight (E, K) and bias (K,) of the grids that the targets lie in."""
    head_of: Tensor | None
    """int64 (B or 1,), the head of each target; None where there is one head."""


DecodingStep: TypeAlias = Callable[
    [StepInput, list[PreparedBlock], list[Tensor], SamplingSettings], Tensor
]


def product_plus(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Computes `x @ weight + bias`, the product in the weight's precision, the sum in float32.

    The cast keeps the compiler from making one `addmm` of it, which would write the bias to memory
    before the product instead of adding it in the loop after it.
    """
    return torch.mm(x.to(weight.dtype), weight).float() + bias.float()


def attend(qkv: Tensor, cache: Tensor, position: Tensor) -> Tensor:
    """Writes the keys and values of one position to the cache and attends with its queries.

    Args:
        qkv: (B, 3, heads, d), the queries scaled.
        cache: (2, B, length, heads, d), keys and values of all positions that it sees, itself
            included.
        position: int64 (1,), the cache's position to write to.

    Returns:
        float32 (B, heads, d).
    """
    new = qkv[:, 1:].transpose(0, 1)[:, :, None]  # (2, B, 1, heads, d)
    cache.index_copy_(2, position, new.to(cache.dtype))
    keys, values = cache.float().transpose(2, 3)  # (B, heads, length, d)
    scores = (qkv[:, 0, :, None] * keys).sum(dim=-1)
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    # Divided at the end: one division per feature instead of one per key.
    seen: Tensor = (weights[..., None] * values).sum(dim=2) / weights.sum(dim=-1)[..., None]
    return seen


def pass_blocks(
    x: Tensor, blocks: list[PreparedBlock], caches: list[Tensor], position: Tensor
) -> Tensor:
    """Passes one position of a batch through all blocks: float32 (B, E), normalised at the end."""
    for block, kept in zip(blocks, caches, strict=True):
        _, batch, _, heads, head_dim = kept.shape
        qkv = product_plus(block.qkv_bias, F.layer_norm(x, x.shape[-1:]), block.to_qkv)
        seen = attend(qkv.view(batch, 3, heads, head_dim), kept, position)
        x = x + product_plus(block.project_bias, seen.view(batch, heads * head_dim), block.project)
        inner = F.silu(product_plus(block.mlp_in_bias, F.layer_norm(x, x.shape[-1:]), block.mlp_in))
        x = x + product_plus(block.mlp_out_bias, inner, block.mlp_out)
    return F.layer_norm(x, x.shape[-1:])


def decoding_step(
    step: StepInput, blocks: list[PreparedBlock], caches: list[Tensor], settings: SamplingSettings
) -> Tensor:
    """Samples the next code of every image: int64 (B,).

    Args:
        step: Inputs, and how the codes are sampled.
        blocks: The network's.
        caches: Per block (2, B or 2 B, length, heads, d), see `attend`.
        settings: Top-k, top-p, whether to guide, and whether the temperature is 0; the values of
            both are taken from `step`, so that compiled code serves them all.
    """
    hidden = pass_blocks(step.inputs, blocks, caches, step.position)
    all_logits = [product_plus(bias, hidden, weight) for weight, bias in step.heads]
    logits = all_logits[0] if step.head_of is None else select_logits(all_logits, step.head_of)
    return guide_and_sample(
        logits,
        step.uniform,
        settings,
        guidance_scale=step.guidance_scale,
        temperature=step.temperature if settings.temperature else 0.0,
    )[0]


@cache
def compiled_decoding_step() -> DecodingStep:
    """Compiles `decoding_step`, at its first call; see `_MAX_VERSIONS`.

    The cache's length, temperature and guidance scale may vary.
    """
    compiled: DecodingStep = torch.compile(decoding_step, dynamic=False)

    def step(
        step_input: StepInput,
        blocks: list[PreparedBlock],
        caches: list[Tensor],
        settings: SamplingSettings,
    ) -> Tensor:
        for cached in caches:
            torch._dynamo.maybe_mark_dynamic(cached, 2)
        # After as many versions torch would silently stop compiling: by default 8, which a
        # comparison of a few priors reaches.
        with torch._dynamo.config.patch(recompile_limit=_MAX_VERSIONS):
            return compiled(step_input, blocks, caches, settings)

    return step


class CompiledStep:
    """Samples the next codes of one batch by the compiled `decoding_step`."""

    def __init__(self, network: CachedTransformer) -> None:
        self._network = network
        # Compiled code is made for a number, but takes any tensor of one.
        length = network.prefix + len(network.weights.grid_of)
        self._positions = torch.arange(length, device=network.weights.labels.device)
        self._rule: SamplingRule | None = None

    def __call__(
        self,
        inputs: Tensor,
        uniform: Tensor,
        rule: SamplingRule,
        num_known: int,
        head: int | None,
        head_of: Tensor | None = None,
    ) -> Tensor:
        """Samples one code of every image: int64 (B,).

        Args:
            inputs: float32 (B or 2 B, E), embedded outside of compiled code, which would embed
                anew in each block.
            uniform: float64 (B,).
            rule: How to sample.
            num_known: Known codes of each image.
            head: The grid of all targets; None where they differ.
            head_of: int64 (B or 1,), the grid of each target, where they differ.
        """
        if rule is not self._rule:
            self._bind(rule)
        heads = self._network.weights.heads
        position = self._network.prefix + num_known
        step_input = StepInput(
            inputs,
            position=self._positions[position : position + 1],
            uniform=uniform,
            temperature=self._temperatures[num_known],
            guidance_scale=self._guidance_scales[num_known],
            heads=heads if head is None else [heads[head]],
            head_of=head_of if head is None and len(heads) > 1 else None,
        )
        caches = self._network.cache.up_to(position + 1)
        blocks = self._network.weights.blocks
        return compiled_decoding_step()(step_input, blocks, caches, self._settings)

    def _bind(self, rule: SamplingRule) -> None:
        self._rule, settings, device = rule, rule.settings, self._positions.device
        # Compiled code only asks whether the temperature is zero, and whether there is guidance;
        # their values are inputs, so that other ones compile nothing.
        self._settings = SamplingSettings(
            temperature=1.0 if settings.temperature else 0.0,
            top_k=settings.top_k,
            top_p=settings.top_p,
            guidance_scale=2.0 if settings.guided else 1.0,
        )
        self._guidance_scales = torch.tensor(rule.guidance_scales, device=device)
        self._temperatures = torch.tensor(rule.temperatures, dtype=torch.float64, device=device)
