"""Draws from a transformer prior: everything prepared once, then few operations per code.

A pass of one position over a batch is so little work that what surrounds the matrix products
would cost more than they do. So the norms' scale and shift and attention's 1 / sqrt(d) are folded
into the weights, keys and values lie where the batched products read them, and the masks are ready.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from stage2_prior.config import SamplingSettings
from stage2_prior.grids import GridSpec
from stage2_prior.sampling.logits import choose, guidance_scales, guide, temperatures
from stage2_prior.sampling.padding import fill_rows
from stage2_prior.transformer.decoding_step import NextCode, compiled_decoding_step
from stage2_prior.transformer.key_value_cache import KeyValueCache
from stage2_prior.transformer.prepared_weights import PreparedBlock

if TYPE_CHECKING:
    from stage2_prior.transformer.prior import TransformerPrior

# Keys are kept and read in multiples of this, the missing ones masked: softmax and batched products
# over lengths that do not fill vector registers cost up to four times as much.
_LENGTH_MULTIPLE = 16


class TransformerSampler:
    """One batch of sequences being drawn.

        with TransformerSampler(prior, labels, settings, context) as sampler:
            drawn = sampler.draw_next(sources, codes, targets, index, uniform)
            hidden = sampler.advance(sampler.embed(sources, codes, targets), start, mask)
            drawn, _ = sampler.draw(hidden, targets, index, uniform)

    Args:
        prior: Gives the weights.
        labels: int64 (B,), `null_label` for none.
        settings: How to draw. Under a guidance scale the batch holds every image a second time,
            without its label. `compile` must be decided: on or off.
        context: int64 (B, Lc) or None; goes through the network here, once.
    """

    def __init__(
        self,
        prior: TransformerPrior,
        labels: Tensor,
        settings: SamplingSettings,
        context: Tensor | None = None,
    ) -> None:
        self.settings = settings
        # Compiled code only asks whether the temperature is zero; its value is an input.
        self._rule = replace(settings, temperature=1.0 if settings.temperature else 0.0)
        self.batch = len(labels)
        self.guided = settings.guided
        if self.guided:
            labels = torch.cat([labels, torch.full_like(labels, prior.null_label)])
        self._grids: tuple[GridSpec, ...] = prior.grids
        self._grid_of = prior.positions[:, 0]
        self._grid_list = self._grid_of.tolist()
        self._scales = guidance_scales(settings, prior.num_codes)
        self._temperatures = temperatures(settings, prior.num_codes)
        self._dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
        self._weights = prior.prepared_weights(self._dtype)
        self._labels = prior.label_embedding(labels)[:, None]  # (B, 1, E)
        prefix = None if context is None else prior.embed_context(context)  # (B, Lc, E)
        self.prefix = 0 if prefix is None else prefix.shape[1]
        assert settings.compile != "auto"
        self._step = compiled_decoding_step() if settings.compile == "on" else None
        heads, width = prior.config.num_heads, prior.config.width
        self._cache = KeyValueCache(
            prior.cache_memory,
            num_layers=prior.config.num_layers,
            batch=len(labels),
            num_heads=heads,
            length=self._padded(self.prefix + prior.num_codes),
            head_dim=width // heads,
            # The compiled step widens what it reads while reading it; other products cannot.
            dtype=self._dtype if self._step else torch.float32,
            device=labels.device,
            compiled=self._step is not None,
        )
        if prefix is not None:
            prefix = torch.cat([prefix, prefix]) if self.guided else prefix
            seen = self._labels.new_zeros(self.prefix, self._padded(self.prefix))
            seen[:, self.prefix :] = float("-inf")
            self._run(prefix + self._labels, 0, seen)
        length = self.prefix + prior.num_codes
        self._causal = self._causal_mask(length)
        if self._step is not None:
            # Compiled code is made for a number, but takes any tensor of one.
            device = labels.device
            self._places = torch.arange(length, device=device)
            self._scale_at = torch.tensor(self._scales, device=device)
            self._temperature_at = torch.tensor(
                self._temperatures, dtype=torch.float64, device=device
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._cache.close()

    def embed(self, sources: Tensor, codes: Tensor, targets: Tensor) -> Tensor:
        """Inputs of the network: a code, where it lies, and which position is asked for.

        Args:
            sources: int64 (B or 1, n), positions of the codes; L for the start.
            codes: int64 (B, n), 0 for the start.
            targets: int64 (B or 1, n), positions to predict.

        Returns:
            float32 (B, n, E).
        """
        weights = self._weights
        x = F.embedding(codes + weights.first_row[sources], weights.table)
        if weights.source_places is not None:
            x = x + F.embedding(sources, weights.source_places)
        x = x + F.embedding(targets, weights.target_places)
        if self.guided:
            x = torch.cat([x, x])
        embedded: Tensor = x + self._labels
        return embedded

    def causal_rows(self, start: int, count: int) -> Tensor:
        """The mask of positions `start` to `start + count - 1`, each seeing those up to itself."""
        first = self.prefix + start
        rows: Tensor = self._causal[first : first + count, : self._padded(first + count)]
        return rows

    def query_rows(self, start: int, appended: int, queries: int) -> Tensor:
        """The mask of `appended` positions from `start`, and of queries after them.

        Each query sees everything before the first query, and itself.
        """
        first = self.prefix + start
        known, end = first + appended, first + appended + queries
        shape = (appended + queries, self._padded(end))
        mask = torch.full(shape, float("-inf"), device=self._labels.device)
        mask[:appended, :known] = self._causal[first:known, :known]
        mask[appended:, :known] = 0
        mask[appended:, known:end].fill_diagonal_(0)
        return mask

    def advance(self, x: Tensor, start: int, mask: Tensor) -> Tensor:
        """Passes n positions through the network and keeps their keys and values.

        Args:
            x: float32 (B, n, E); is overwritten.
            start: Where they are kept: from position `start` on.
            mask: float32 (n, at least prefix + start + n), 0 for what a position sees, else -inf.

        Returns:
            (B, n, E), normalised.
        """
        return self._run(x, self.prefix + start, mask)

    def draw_next(
        self, sources: Tensor, codes: Tensor, targets: Tensor, index: int, uniform: Tensor
    ) -> Tensor:
        """Draws one code of every image, given all that was passed so far and `codes`.

        Args:
            sources: int64 (B or 1, 1), positions of the codes drawn last; L for the start.
            codes: int64 (B, 1), those codes, 0 for the start.
            targets: int64 (B or 1, 1), the positions to draw.
            index: How many codes were known before.
            uniform: float64 (B, 1).

        Returns:
            int64 (B, 1).
        """
        place = self.prefix + index
        inputs = self.embed(sources, codes, targets)
        # A length of one is a case of its own to a compiler: it would compile twice.
        if self._step is None or not place:
            hidden = self.advance(inputs, index, self.causal_rows(index, 1))
            return self.draw(hidden, targets, index, uniform)[0]
        heads, head = self._weights.heads, None
        if targets.numel() == 1:
            heads = [heads[self._grid_list[int(targets)]]]
        elif len(heads) > 1:
            head = self._grid_of[targets]
        asked = NextCode(
            # Gathered outside of compiled code, which would gather anew in each block.
            inputs[:, 0],
            place=self._places[place : place + 1],
            uniform=uniform,
            temperature=self._temperature_at[index],
            guidance_scale=self._scale_at[index],
            heads=heads,
            head=head,
        )
        caches = self._cache.up_to(place + 1)
        return self._step(asked, self._weights.blocks, caches, self._rule)

    def draw(
        self, hidden: Tensor, targets: Tensor, index: int, uniform: Tensor, *, scored: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Draws the codes at `targets` from what `advance` gave for them.

        Args:
            hidden: (B, n, E).
            targets: int64 (B or 1, n), their positions.
            index: How many codes were known before, by which guidance and temperature go.
            uniform: float64 (B, n).
            scored: Whether the log-probabilities are wanted; they are zero otherwise.

        Returns:
            int64 (B, n) codes, and float32 (B, n) log p of each, before temperature and the like.
        """
        if targets.numel() == 1:
            return self._draw_from(self._grid_list[int(targets)], hidden, index, uniform, scored)
        drawn, scores = self._draw_from(0, hidden, index, uniform, scored)
        for grid in range(1, len(self._grids)):
            here = self._grid_of[targets] == grid
            others, other_scores = self._draw_from(grid, hidden, index, uniform, scored)
            drawn = torch.where(here, others, drawn)
            scores = torch.where(here, other_scores, scores)
        return drawn, scores

    def _draw_from(
        self, grid: int, hidden: Tensor, index: int, uniform: Tensor, scored: bool
    ) -> tuple[Tensor, Tensor]:
        """All (B, n) drawn as codes of one grid."""
        weight, bias = self._weights.heads[grid]
        rows = hidden.flatten(0, 1)  # (B * n, E)
        logits = torch.addmm(bias, fill_rows(rows), weight)[: len(rows)].float()
        if self.guided:
            conditional, unconditional = logits.chunk(2)
            logits = guide(conditional, unconditional, self._scales[index])
        drawn = choose(
            logits,
            uniform.flatten(),
            temperature=self._temperatures[index],
            top_k=self.settings.top_k,
            top_p=self.settings.top_p,
        )
        if not scored:
            return drawn.view(self.batch, -1), logits.new_zeros(self.batch, uniform.shape[1])
        scores = logits.log_softmax(dim=-1).gather(1, drawn[:, None])
        return drawn.view(self.batch, -1), scores.view(self.batch, -1)

    def _causal_mask(self, length: int) -> Tensor:
        shape = (length, self._padded(length))
        mask = torch.full(shape, float("-inf"), device=self._labels.device).triu_(1)
        mask[:, : self.prefix] = 0
        return mask

    @staticmethod
    def _padded(length: int) -> int:
        return -(-length // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE

    def _run(self, x: Tensor, first: int, mask: Tensor) -> Tensor:
        rows, count, width = x.shape
        self._cache.reserve(mask.shape[1])
        x = fill_rows(x.view(rows * count, width))  # (N, E)
        for i, block in enumerate(self._weights.blocks):
            heads = self._attend(self._normalise(x), block, i, slice(first, first + count), mask)
            x += torch.addmm(block.project_bias, heads, block.project)
            inner = torch.addmm(block.mlp_in_bias, self._normalise(x), block.mlp_in)
            x += torch.addmm(block.mlp_out_bias, F.silu(inner, inplace=True), block.mlp_out)
        return self._normalise(x)[: rows * count].view(rows, count, width)

    def _normalise(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:]).to(self._dtype)

    def _attend(
        self, x: Tensor, block: PreparedBlock, index: int, places: slice, mask: Tensor
    ) -> Tensor:
        """Attention in float32: (N, E), B * n rows and those that fill up, to the same shape.

        The result is what the projection takes.
        """
        cache = self._cache.blocks[index]
        _, rows, num_heads, _, head_dim = cache.shape
        count = places.stop - places.start
        qkv = torch.addmm(block.qkv_bias, x, block.to_qkv)[: rows * count]
        qkv = qkv.view(rows, count, 3, num_heads, head_dim).permute(2, 0, 3, 1, 4)
        cache[:, :, :, places] = qkv[1:]
        query = qkv[0].float().reshape(rows * num_heads, -1, head_dim)
        keys, values = self._cache.keys_and_values(index)
        weights = torch.bmm(query, keys.float()).add_(mask).softmax(dim=-1)
        heads = torch.bmm(weights, values.float()).view(rows, num_heads, -1, head_dim)
        return fill_rows(heads.transpose(1, 2).reshape(rows * count, -1)).to(self._dtype)
