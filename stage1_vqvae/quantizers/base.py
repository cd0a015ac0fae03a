"""The contract every quantizer keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class QuantizerOutput:
    """What quantizing z_e gives."""

    z_q: Tensor
    """float32 (B, D, h, w): the quantized z_e, with the gradient estimator's path back to z_e."""
    codes: tuple[Tensor, ...]
    """int64 (B, h, w) per grid, coarse to fine, each in [0, codebook_sizes[i])."""
    losses: dict[str, Tensor]
    """Weighted loss terms to add to the objective, by name, each float32 () averaged over the
    elements of z_e."""


class Quantizer(nn.Module, ABC):
    """Maps z_e (B, D, h, w) to code grids and vectors, and codes back to vectors.

    A quantizer computes in float32 whatever the autocast around it. State other than parameters
    (moving statistics, restarts) changes in `forward` in training mode and nowhere else.

        quantizer.initialise(z_e for z_e in a few batches)    # once, before training
        output = quantizer(z_e)                               # training: losses, statistics
        codes = quantizer.encode(z_e)                         # inference
        z_q = quantizer.decode(codes)
    """

    codebook_dim: int
    """D, the channels of z_e and z_q."""
    codebook_sizes: tuple[int, ...]
    """The number of codes of each grid."""

    @abstractmethod
    def forward(self, z_e: Tensor) -> QuantizerOutput:
        """Quantizes float (B, D, h, w) for training."""

    @abstractmethod
    def encode(self, z_e: Tensor) -> tuple[Tensor, ...]:
        """The code grids of float (B, D, h, w): int64 (B, h, w) each."""

    @abstractmethod
    def decode(self, codes: tuple[Tensor, ...]) -> Tensor:
        """The vectors of code grids, float32 (B, D, h, w)."""

    def initialise(self, batches: Iterable[Tensor]) -> None:
        """Fits the initial state to z_e of several training batches, (B, D, h, w) each."""

    def set_progress(self, fraction: float) -> None:
        """Tells how much of training is done, in [0, 1]; what is annealed follows it."""
