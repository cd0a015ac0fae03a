"""Decoding with a PixelCNN, position by position and grid by grid at each."""

from __future__ import annotations

import torch
from torch import Tensor

from stage2_prior.grids import GridSpec
from stage2_prior.numerics import at_least_float32
from stage2_prior.pixelcnn.cached_network import CachedPixelCNN
from stage2_prior.pixelcnn.layers import CodeEmbedding, OutputHeads
from stage2_prior.sampling.padding import pad_rows
from stage2_prior.sampling.stepper import CodeStepper


class PixelCNNStepper(CodeStepper):
    """A `CodeStepper` that evaluates the network once per position.

    Args:
        network: Of this batch, its rows padded.
        embedding: The prior's.
        output: The prior's.
        grids: All of one shape.
        batch: B, without padding.
    """

    def __init__(
        self,
        network: CachedPixelCNN,
        embedding: CodeEmbedding,
        output: OutputHeads,
        grids: tuple[GridSpec, ...],
        batch: int,
    ) -> None:
        self.num_known = 0
        self._network, self._embedding, self._output = network, embedding, output
        self._num_grids, self._columns, self._batch = len(grids), grids[0].width, batch
        self._features: Tensor | None = None  # of the current position, padded (B, E)
        self._here: list[Tensor] = []  # codes of the current position, padded (B,) per grid

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Computes the logits (B, K) of the next position; see `CodeStepper.logits`."""
        if self._features is None:
            row, column = divmod(self.num_known // self._num_grids, self._columns)
            if column == 0:
                self._network.begin_row(row)
            self._features = self._network.features(column)
        logits = self._output.at_position(len(self._here), self._features, self._here)
        return at_least_float32(logits)[: self._batch]

    @torch.no_grad()
    def accept(self, codes: Tensor) -> None:
        """Takes int64 (B,) as the codes of the next position."""
        if self._features is None:
            self.logits()  # what later positions see of this one
        self._here.append(pad_rows(codes))
        if len(self._here) == self._num_grids:
            column = self.num_known // self._num_grids % self._columns
            self._network.read(column, self._embedding(self._here))
            self._features, self._here = None, []
        self.num_known += 1
