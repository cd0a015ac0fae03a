"""The PixelCNN's features one position after another, each computed once.

Ramachandran et al. 2017, "Fast Generation for Convolutional Autoregressive Models": the vertical
stack runs once per row, over all its columns, and the horizontal stack once per position. Each
layer keeps the features that its kernel still reaches and no others.

A position's share is matrix products on buffers made once per batch, too little work for a
convolution call. What a weight can carry is put there beforehand, exactly (powers of two, signs):
`tanh(a) * sigmoid(b) = 2 s(2a) s(b) - s(b)` with s the sigmoid, which a CPU computes several times
faster than tanh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from stage2_prior.pixelcnn.attention import AttentionCache, CausalAttentionBlock
from stage2_prior.pixelcnn.layers import GatedLayer


@dataclass(frozen=True)
class _LayerWeights:
    """One layer's weights, as its matrix products take them.

    Gates are given twice their `a` half, and give their output with the wrong sign.
    """

    vertical: Tensor
    """(2E, E, rows, k), in channels_last order."""
    vertical_bias: Tensor
    """(2E,)."""
    vertical_label_bias: Tensor
    """(B, 2E)."""
    vertical_to_horizontal: Tensor
    """(2E, 2E)."""
    horizontal_bias: Tensor
    """(B, 2E): of both products that meet in the horizontal gate, and of the label."""
    horizontal: Tensor
    """(columns * E, 2E)."""
    horizontal_out: Tensor
    """(E, E)."""
    horizontal_out_bias: Tensor
    """(E,)."""
    context: Tensor | None
    """(E, 2E)."""


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None, "these convolutions have a bias"
    return conv.bias


def _prepare(layer: GatedLayer, labels: Tensor, *, gated_input: bool) -> _LayerWeights:
    width = layer.skip.weight.shape[0]
    tanh_scale = layer.skip.weight.new_ones(2 * width)
    tanh_scale[:width] = 2  # the half that goes through tanh
    vertical = layer.vertical.conv.weight * tanh_scale[:, None, None, None]
    bias = _bias(layer.horizontal.conv) + _bias(layer.vertical_to_horizontal)
    context = layer.context
    return _LayerWeights(
        vertical=(-vertical if gated_input else vertical).contiguous(
            memory_format=torch.channels_last
        ),
        vertical_bias=_bias(layer.vertical.conv) * tanh_scale,
        vertical_label_bias=layer.vertical_gate.label_bias(labels) * tanh_scale,
        # Its input has one half doubled already, its output is to have it.
        vertical_to_horizontal=layer.vertical_to_horizontal.weight[:, :, 0, 0].t()
        / tanh_scale[:, None]
        * tanh_scale,
        horizontal_bias=(layer.horizontal_gate.label_bias(labels) + bias) * tanh_scale,
        horizontal=rearrange(layer.horizontal.conv.weight, "o i 1 c -> (c i) o") * tanh_scale,
        horizontal_out=-layer.horizontal_out.weight[:, :, 0, 0].t(),
        horizontal_out_bias=_bias(layer.horizontal_out),
        context=None if context is None else context.weight[:, :, 0, 0].t() * tanh_scale,
    )


def _gate(x: Tensor, a: Tensor, b: Tensor, out: Tensor) -> None:
    """Writes -tanh(a / 2) * sigmoid(b) to `out` (..., E) for the halves of x (..., 2E), used up."""
    x.sigmoid_()
    torch.addcmul(b, a, b, value=-2, out=out)


class _VerticalStack:
    """The vertical stack: features of a row from the rows above it.

    A whole row is enough work for a convolution call, which on some processors computes twice what
    matrix products do in the same time. `shape` is B, w and E.
    """

    def __init__(self, weights: list[_LayerWeights], shape: tuple[int, int, int]) -> None:
        batch, columns, width = shape
        reference = weights[0].vertical
        self._weights = weights
        self._padding = (0, reference.shape[3] // 2)
        # As many rows as the kernel has, in channels_last order.
        rows = [reference.new_zeros(batch, w.vertical.shape[2], columns, width) for w in weights]
        self._images = [rearrange(x, "b r w e -> b e r w") for x in rows]  # views, as those below
        self._moves = [move for x in rows for move in pairwise(x.unbind(dim=1))]
        self._newest = [rearrange(x[:, -1], "b w e -> w b e") for x in rows]
        self._current = reference.new_empty(columns, batch, width)
        self.to_horizontal = reference.new_empty(len(weights), columns, batch, 2 * width)

    def read(self, column: int, embedded: Tensor) -> None:
        """Takes the embedded codes (B, E) at a column of the current row."""
        self._current[column] = embedded

    def next_row(self) -> None:
        """Moves every row up by one; the topmost is out of reach, the current one the newest."""
        for upper, lower in self._moves:
            upper.copy_(lower)
        self._newest[0].copy_(self._current)

    def run(self, context: Tensor | None) -> None:
        """Fills `to_horizontal` (layers, w, B, 2E) for the current row, from context (w * B, E)."""
        for i, (weights, image) in enumerate(zip(self._weights, self._images, strict=True)):
            seen = F.conv2d(image, weights.vertical, weights.vertical_bias, padding=self._padding)
            sums = rearrange(seen, "b e 1 w -> (w b) e").contiguous()
            if context is not None and weights.context is not None:
                sums.addmm_(context, weights.context)
            below = self.to_horizontal[i]
            below.copy_(weights.horizontal_bias.expand_as(below))
            below.flatten(0, 1).addmm_(sums, weights.vertical_to_horizontal)
            if i + 1 < len(self._weights):
                x = sums.view_as(below).add_(weights.vertical_label_bias)
                a, b = x.chunk(2, dim=-1)
                _gate(x, a, b, out=self._newest[i + 1])


@dataclass(frozen=True)
class _LayerStep:
    """Weights of one layer of the horizontal stack, and views of what it reads and writes."""

    weights: _LayerWeights
    window: Tensor
    """(B, columns * E): what its kernel reaches."""
    gated: Tensor
    """(B, E), written."""
    residual: Tensor
    """(B, E): its input at this position; zeros for the first layer."""
    out: Tensor | None
    """(B, E), written: the next layer's input at this position; None where nothing reads it."""
    attention: tuple[CausalAttentionBlock, AttentionCache] | None
    """What follows the layer."""


class CachedPixelCNN:
    """`PixelCNNPrior.features` position by position, each from the codes before it.

        network = CachedPixelCNN(layers, attention, labels, context, columns=width)
        for row in range(height):
            network.begin_row(row)
            for column in range(width):
                features = network.features(column)  # (B, E)
                network.read(column, embedded_codes)

    Args:
        layers: In evaluation mode; their weights must not change meanwhile.
        attention: Attention blocks by the index of the layer that each follows.
        labels: int64 (B,).
        context: Features of the context (B, E, h, w), or None.
        columns: w.
    """

    def __init__(
        self,
        layers: Sequence[GatedLayer],
        attention: Mapping[int, CausalAttentionBlock],
        labels: Tensor,
        context: Tensor | None,
        columns: int,
    ) -> None:
        batch, width = len(labels), layers[0].skip.weight.shape[0]
        weights = [_prepare(layer, labels, gated_input=i > 0) for i, layer in enumerate(layers)]
        reference = weights[0].horizontal
        reach = reference.shape[0] // width  # columns to the left that the first layer sees
        self._context = None
        if context is not None:
            self._context = rearrange(context, "b e h w -> h (w b) e").contiguous()
        self._vertical = _VerticalStack(weights, (batch, columns, width))
        # What each layer's kernel reaches in the current row, and the last layer's output.
        self._windows = reference.new_zeros(len(layers) + 1, batch, reach + 1, width)
        self._moves = list(pairwise(self._windows.unbind(dim=2)))
        self._gated = reference.new_empty(batch, len(layers) * width)
        self._skip = torch.cat([-layer.skip.weight[:, :, 0, 0].t() for layer in layers])
        self._skip_bias = torch.stack([_bias(layer.skip) for layer in layers]).sum(dim=0)
        blocks = {i: (block, block.new_cache(batch)) for i, block in attention.items()}
        self._steps = [
            self._step(i, weight, blocks.get(i), last=i + 1 == len(layers))
            for i, weight in enumerate(weights)
        ]
        # Sums of each position and layer, whole and as the two halves of the gate.
        self._sums = [
            [(x, *x.chunk(2, dim=1)) for x in positions.unbind()]
            for positions in self._vertical.to_horizontal.unbind(dim=1)
        ]
        self._columns, self._row = columns, 0

    def begin_row(self, row: int) -> None:
        """Runs the vertical stack over the rows above; rows must be begun in order."""
        if row:
            self._vertical.next_row()
        self._windows.zero_()
        self._vertical.run(None if self._context is None else self._context[row])
        self._row = row

    def features(self, column: int) -> Tensor:
        """Computes the features (B, E) of this column; columns must come in order."""
        if column:
            for older, newer in self._moves:
                older.copy_(newer)
        changes = []
        for (x, a, b), step in zip(self._sums[column], self._steps, strict=True):
            x.addmm_(step.window, step.weights.horizontal)
            _gate(x, a, b, out=step.gated)
            if step.out is not None:
                torch.add(step.residual, step.weights.horizontal_out_bias, out=step.out)
                step.out.addmm_(step.gated, step.weights.horizontal_out)
                if step.attention is not None:
                    block, cache = step.attention
                    change = block.step(step.out, self._row * self._columns + column, cache)
                    step.out.add_(change)
                    changes.append(change)
        return sum(changes, torch.addmm(self._skip_bias, self._gated, self._skip))

    def read(self, column: int, embedded: Tensor) -> None:
        """Takes the embedded codes (B, E) at this column of the row."""
        self._vertical.read(column, embedded)
        self._windows[0, :, -1] = embedded

    def _step(
        self,
        layer: int,
        weights: _LayerWeights,
        attention: tuple[CausalAttentionBlock, AttentionCache] | None,
        *,
        last: bool,
    ) -> _LayerStep:
        batch, width = self._windows.shape[1], self._windows.shape[3]
        # The first layer's input knows the code to be predicted: it sees neither of it.
        reached = self._windows[layer] if layer else self._windows[0, :, :-1]
        residual = self._windows[layer, :, -1]
        return _LayerStep(
            weights=weights,
            window=reached.view(batch, -1),
            gated=self._gated[:, layer * width : (layer + 1) * width],
            residual=residual if layer else torch.zeros_like(residual),
            out=self._windows[layer + 1, :, -1] if attention or not last else None,
            attention=attention,
        )
