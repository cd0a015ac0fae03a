"""The transformer with a key-value cache, for decoding: few operations per code.

A pass of one position over a batch is so little work that what surrounds the matrix products
would cost more than they do. So the norms' scale and shift and attention's 1 / sqrt(d) are folded
into the weights, keys and values lie where the batched products read them, and the masks are ready.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stage2_prior.numerics import at_least_float32
from stage2_prior.sampling.padding import pad_rows
from stage2_prior.transformer.key_value_cache import CacheMemory, KeyValueCache
from stage2_prior.transformer.prepared_weights import PreparedBlock, PreparedWeights

# Keys are kept and read in multiples of this, the missing ones masked: softmax and batched products
# over lengths that do not fill vector registers cost up to four times as much.
_LENGTH_MULTIPLE = 16


class CachedTransformer:
    """The network of one batch, with the keys and values of the positions it has read.

        hidden = network.advance(network.embed(sources, codes, targets), start, mask)
        logits = network.logits(hidden, grid)

    Args:
        weights: The network's.
        labels: int64 (B,), as for `CodePrior.forward`.
        context: (B, Lc, E), the embedded context without the label, or None; is read here, once.
        memory: Memory of the cache.
        for_compiled_step: Whether a compiled loop reads the cache (see `decoding_step`).
    """

    def __init__(
        self,
        weights: PreparedWeights,
        labels: Tensor,
        context: Tensor | None,
        memory: CacheMemory,
        *,
        for_compiled_step: bool,
    ) -> None:
        self.weights = weights
        self._labels = weights.labels[labels][:, None]  # (B, 1, E)
        self.prefix = 0 if context is None else context.shape[1]
        width, length = weights.labels.shape[1], self.prefix + len(weights.grid_of)
        self._attention_dtype = torch.promote_types(weights.dtype, torch.float32)
        self.cache = KeyValueCache(
            memory,
            num_layers=len(weights.blocks),
            batch=len(labels),
            num_heads=weights.num_heads,
            length=_padded(length),
            head_dim=width // weights.num_heads,
            # The compiled step widens what it reads while reading it; other products cannot.
            dtype=weights.dtype if for_compiled_step else self._attention_dtype,
            device=labels.device,
            compiled=for_compiled_step,
        )
        if context is not None:
            visible = torch.zeros(self.prefix, _padded(self.prefix), device=labels.device)
            visible[:, self.prefix :] = float("-inf")
            self._run(context + self._labels, 0, visible)
        mask = torch.full((length, _padded(length)), float("-inf"), device=labels.device).triu_(1)
        mask[:, : self.prefix] = 0
        self._causal = mask

    def embed(self, sources: Tensor, codes: Tensor, targets: Tensor) -> Tensor:
        """Embeds the network's inputs: a code, its position, and the position to predict.

        Args:
            sources: int64 (B or 1, n), positions of the codes; L for the start.
            codes: int64 (B, n), 0 for the start.
            targets: int64 (B or 1, n), positions to predict.

        Returns:
            float32 (B, n, E).
        """
        weights = self.weights
        x = F.embedding(codes + weights.first_row[sources], weights.codes)
        if weights.source_positions is not None:
            x = x + F.embedding(sources, weights.source_positions)
        x = x + F.embedding(targets, weights.target_positions)
        embedded: Tensor = x + self._labels
        return embedded

    def causal_mask(self, start: int, count: int) -> Tensor:
        """Returns the mask of `count` positions from `start`, each seeing those up to itself."""
        first = self.prefix + start
        return self._causal[first : first + count, : _padded(first + count)]

    def query_mask(self, start: int, appended: int, queries: int) -> Tensor:
        """Returns the mask of `appended` positions from `start`, and of queries after them.

        Each query sees everything before the first query, and itself.
        """
        first = self.prefix + start
        known, end = first + appended, first + appended + queries
        shape = (appended + queries, _padded(end))
        mask = torch.full(shape, float("-inf"), device=self._labels.device)
        mask[:appended, :known] = self._causal[first:known, :known]
        mask[appended:, :known] = 0
        mask[appended:, known:end].fill_diagonal_(0)
        return mask

    def advance(self, x: Tensor, start: int, mask: Tensor) -> Tensor:
        """Passes n positions through the network and keeps their keys and values.

        Args:
            x: float32 (B, n, E); is overwritten.
            start: The first position; the others follow it.
            mask: float32 (n, at least prefix + start + n), 0 for what a position sees, else -inf.

        Returns:
            (B, n, E), normalised.
        """
        return self._run(x, self.prefix + start, mask)

    def logits(self, hidden: Tensor, grid: int) -> Tensor:
        """Computes the logits of one grid's codes: (B, n, E), from `advance`, to (B, n, K)."""
        weight, bias = self.weights.heads[grid]
        rows = hidden.flatten(0, 1)  # (B * n, E)
        logits = torch.addmm(bias, pad_rows(rows), weight)[: len(rows)]
        return at_least_float32(logits).view(*hidden.shape[:2], -1)

    def _run(self, x: Tensor, first: int, mask: Tensor) -> Tensor:
        rows, count, width = x.shape
        self.cache.reserve(mask.shape[1])
        x = pad_rows(x.view(rows * count, width))  # (N, E)
        for i, block in enumerate(self.weights.blocks):
            heads = self._attend(self._normalise(x), block, i, slice(first, first + count), mask)
            x += torch.addmm(block.project_bias, heads, block.project)
            inner = torch.addmm(block.mlp_in_bias, self._normalise(x), block.mlp_in)
            x += torch.addmm(block.mlp_out_bias, F.silu(inner, inplace=True), block.mlp_out)
        return self._normalise(x)[: rows * count].view(rows, count, width)

    def _normalise(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:]).to(self.weights.dtype)

    def _attend(
        self, x: Tensor, block: PreparedBlock, index: int, positions: slice, mask: Tensor
    ) -> Tensor:
        """Attention in float32 at least: (N, E), padded rows of B * n, to the same shape."""
        cache = self.cache.blocks[index]
        _, rows, num_heads, _, head_dim = cache.shape
        count = positions.stop - positions.start
        qkv = torch.addmm(block.qkv_bias, x, block.to_qkv)[: rows * count]
        qkv = qkv.view(rows, count, 3, num_heads, head_dim).permute(2, 0, 3, 1, 4)
        cache[:, :, :, positions] = qkv[1:]
        query = qkv[0].to(self._attention_dtype).reshape(rows * num_heads, -1, head_dim)
        keys, values = self.cache.keys_and_values(index)
        weights = torch.bmm(query, keys.to(query.dtype)).add_(mask).softmax(dim=-1)
        heads = torch.bmm(weights, values.to(query.dtype)).view(rows, num_heads, -1, head_dim)
        return pad_rows(heads.transpose(1, 2).reshape(rows * count, -1)).to(self.weights.dtype)


def _padded(length: int) -> int:
    return -(-length // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
