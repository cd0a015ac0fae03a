"""The contract every quantizer keeps."""

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
    """What quantizing z_e gives."""

    z_q: Tensor
    """float32 (B, D, h, w): the quantized z_e, with the gradient estimator's path back to z_e."""
    codes: tuple[Tensor, ...]
    """int64 (B, h, w) per grid, coarse to fine, each in [0, codebook_sizes[i])."""
    losses: dict[str, Tensor]
    """Weighted loss terms to add to the objective, by name, each float32 () and a mean over
    elements or positions of z_e."""


class Quantizer(nn.Module, ABC):
    """Maps z_e (B, D, h, w) to code grids and vectors, and codes back to vectors.

    A kind brings z_e to the space of its code vectors (`to_code_space`: most leave it as it is) and
    quantizes there. It computes in float32 whatever the autocast around it. State other than
    parameters (moving statistics, restarts) changes in `forward` in training mode and nowhere else.

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
    """Batches of z_e that `fit` takes."""
    decodes_prefixes: bool = False
    """Whether the first grids decode without the later ones."""
    copies_gradient: bool = True
    """Whether z_q hands the gradient it gets to z = to_code_space(z_e) unchanged."""

    def forward(self, z_e: Tensor) -> QuantizerOutput:
        """Quantizes float (B, D, h, w); in training mode, also updates what is learned from z_e.

        An empty batch has no loss terms, and nothing is learned from it.
        """
        with torch.autocast(z_e.device.type, enabled=False):
            z = self.to_code_space(z_e.float())
            if z.numel():
                return self.quantize(z)
        codes = torch.empty(len(z), *z.shape[2:], dtype=torch.int64, device=z.device)
        return QuantizerOutput(z, (codes,) * len(self.codebook_sizes), {})

    def encode(self, z_e: Tensor) -> tuple[Tensor, ...]:
        """The code grids of float (B, D, h, w): int64 (B, h, w) each."""
        with torch.autocast(z_e.device.type, enabled=False):
            return self.assign(self.to_code_space(z_e.float()))

    @torch.no_grad()
    def initialise(self, batches: Iterable[Tensor]) -> None:
        """Fits the initial state to z_e of several training batches, (B, D, h, w) each.

        Every process gives the same. `scale_usage` follows where training has other batches.

        Raises:
            ValueError: It takes batches and there are none, or empty ones only.
        """
        kept = [z_e.float() for z_e in islice(batches, self.num_fit_batches) if z_e.numel()]
        with torch.autocast(kept[0].device.type if kept else "cpu", enabled=False):
            self.fit(self.to_code_space(z_e) for z_e in kept)
        if kept:
            self.scale_usage(len(to_points(kept[0])))

    def to_code_space(self, z_e: Tensor) -> Tensor:
        """What the code vectors approximate, from z_e: float32 (B, D, h, w) both."""
        return z_e

    @abstractmethod
    def quantize(self, z: Tensor) -> QuantizerOutput:
        """`forward` from z = to_code_space(z_e), float32 (B, D, h, w)."""

    @abstractmethod
    def assign(self, z: Tensor) -> tuple[Tensor, ...]:
        """`encode` from z = to_code_space(z_e), float32 (B, D, h, w)."""

    @abstractmethod
    def decode(self, codes: tuple[Tensor, ...]) -> Tensor:
        """The vectors of code grids, float32 (B, D, h, w)."""

    @abstractmethod
    def code_vectors(self) -> tuple[Tensor, ...]:
        """What each code of each grid stands for: float32 (K_i, D), or (K_i, D / groups)."""

    def fit(self, batches: Iterable[Tensor]) -> None:
        """`initialise` from z = to_code_space(z_e); takes `num_fit_batches` or all there are."""

    def scale_usage(self, num_points: int) -> None:
        """Scales counts of how often codes are used to a forward pass of `num_points` positions."""

    def set_progress(self, fraction: float) -> None:
        """Tells how much of training is done, in [0, 1]; what is annealed follows it."""

    def residual_scale(self) -> Tensor | float:
        """Factor, per dimension (D,) or for all, by which what is left over is smaller than z.

        1 where the code vectors adapt to whatever they are given.
        """
        return 1.0

    def residual_offset(self) -> Tensor | float:
        """What moves the code vectors to lie evenly around 0, as what is left over does.

        Per dimension (D,) or for all; 0 where they do so already or adapt.
        """
        return 0.0


def to_points(z: Tensor) -> Tensor:
    """(B, D, h, w) as points (N, D), N = B h w."""
    return rearrange(z, "b d h w -> (b h w) d")


def to_map(points: Tensor, shape: torch.Size) -> Tensor:
    """Points (N, D) as (B, D, h, w) of `shape`; inverts `to_points`."""
    batch, _, height, _ = shape
    return rearrange(points, "(b h w) d -> b d h w", b=batch, h=height)


def to_grid(codes: Tensor, shape: torch.Size) -> Tensor:
    """Codes (N,) as the grid (B, h, w) of a z of `shape` (B, D, h, w)."""
    return codes.view(shape[0], *shape[2:])
