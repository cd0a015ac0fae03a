"""Base class of all quantizers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import torch
from einops import rearrange
from torch import Tensor, nn


@dataclass(frozen=True)
class QuantizerOutput:
    """Output of a quantizer."""

    z_q: Tensor
    """float32 (B, D, h, w): the quantized z_e, with the gradient estimator's path back to z_e."""
    codes: tuple[Tensor, ...]
    """int64 (B, h, w) per grid, coarse to fine, each in [0, codebook_sizes[i])."""
    losses: dict[str, Tensor]
    """Weighted loss terms to add to the objective, by name, each float32 () and a mean over
    elements or positions of z_e."""


class Quantizer(nn.Module, ABC):
    """Maps z_e (B, D, h, w) to code grids and vectors, and codes back to vectors.

    A subclass maps z_e to the space of its code vectors (`to_code_space`, the identity for most)
    and quantizes there, in float32 under any autocast. State other than parameters (moving
    statistics, restarts) changes in `forward` in training mode and nowhere else.

        quantizer.initialise(z_e for z_e in a few batches)    # once, before training
        output = quantizer(z_e)                               # training: losses, statistics
        codes = quantizer.encode(z_e)                         # inference
        z_q = quantizer.decode(codes)
    """

    codebook_dim: int
    """D, the channels of z_e and z_q."""
    codebook_sizes: tuple[int, ...]
    """The number of codes of each grid."""
    num_fit_batches: int = 0
    """Batches of z_e that `fit` needs; 0 where nothing is fitted."""
    decodes_prefixes: bool = False
    """Whether the first grids decode without the later ones."""
    is_straight_through: bool = True
    """Whether the gradient of z_q is copied to z = to_code_space(z_e) unchanged."""

    def forward(self, z_e: Tensor) -> QuantizerOutput:
        """Quantizes float (B, D, h, w); in training mode, also updates the statistics of z_e.

        An empty batch has no loss terms, and nothing is learned from it.
        """
        with torch.autocast(z_e.device.type, enabled=False):
            z = self.to_code_space(z_e.float())
            if z.numel():
                return self.quantize(z)
        codes = torch.empty(len(z), *z.shape[2:], dtype=torch.int64, device=z.device)
        return QuantizerOutput(z, (codes,) * len(self.codebook_sizes), {})

    def encode(self, z_e: Tensor) -> tuple[Tensor, ...]:
        """Returns the code grids of float (B, D, h, w): int64 (B, h, w) each."""
        with torch.autocast(z_e.device.type, enabled=False):
            return self.assign(self.to_code_space(z_e.float()))

    @torch.no_grad()
    def initialise(self, batches: Iterable[Tensor]) -> None:
        """Fits the initial state to z_e of the first `num_fit_batches`, (B, D, h, w) each.

        All processes end with the same state. `scale_usage` follows if training has other batches.

        Raises:
            ValueError: It needs batches and there are none, or empty ones only.
        """
        if not self.num_fit_batches:
            return
        kept = [z_e.float() for z_e in islice(batches, self.num_fit_batches) if z_e.numel()]
        if not kept:
            raise ValueError("at least one batch is required to initialise a codebook, got none")
        with torch.autocast(kept[0].device.type, enabled=False):
            self.fit([self.to_code_space(z_e) for z_e in kept])
        self.scale_usage(len(to_points(kept[0])))

    def to_code_space(self, z_e: Tensor) -> Tensor:
        """Maps z_e to what the code vectors approximate, float32 (B, D, h, w) both."""
        return z_e

    @abstractmethod
    def quantize(self, z: Tensor) -> QuantizerOutput:
        """Implements `forward` for z = to_code_space(z_e), float32 (B, D, h, w)."""

    @abstractmethod
    def assign(self, z: Tensor) -> tuple[Tensor, ...]:
        """Implements `encode` for z = to_code_space(z_e), float32 (B, D, h, w)."""

    @abstractmethod
    def decode(self, codes: tuple[Tensor, ...]) -> Tensor:
        """Returns the vectors of code grids, float32 (B, D, h, w)."""

    @abstractmethod
    def code_vectors(self) -> tuple[Tensor, ...]:
        """Returns the vector of each code per grid: float32 (K_i, D), or (K_i, D / groups)."""

    def fit(self, batches: list[Tensor]) -> None:
        """Implements `initialise` for one or more z = to_code_space(z_e) that are not empty."""

    def scale_usage(self, num_points: int) -> None:
        """Scales the usage of codes to that of a forward pass of `num_points` positions."""

    def set_progress(self, fraction: float) -> None:
        """Sets the fraction of training that is done, in [0, 1], for all that is annealed."""

    def residual_scale(self) -> Tensor | float:
        """Returns by how much a residual is smaller than z, per dimension (D,) or for all.

        1 where the code vectors adapt to whatever they are given.
        """
        return 1.0

    def residual_offset(self) -> Tensor | float:
        """Returns the shift that centres the code vectors at 0, as residuals are.

        Per dimension (D,) or for all; 0 where they are centred or adapt.
        """
        return 0.0


def to_points(z: Tensor) -> Tensor:
    """Reshapes (B, D, h, w) to points (N, D), N = B h w."""
    return rearrange(z, "b d h w -> (b h w) d")


def to_map(points: Tensor, shape: torch.Size) -> Tensor:
    """Reshapes points (N, D) to (B, D, h, w) = `shape`; inverts `to_points`."""
    batch, _, height, _ = shape
    return rearrange(points, "(b h w) d -> b d h w", b=batch, h=height)


def to_grid(codes: Tensor, shape: torch.Size) -> Tensor:
    """Reshapes codes (N,) to the grid (B, h, w) of a z of `shape` (B, D, h, w)."""
    return codes.view(shape[0], *shape[2:])
