"""What every quantizer that looks up the nearest of K learned vectors has in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from itertools import islice

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from stage1_vqvae.collectives import all_reduce_sum, broadcast
from stage1_vqvae.config import CodebookConfig
from stage1_vqvae.quantizers.base import Quantizer, QuantizerOutput
from stage1_vqvae.quantizers.kmeans import kmeans
from stage1_vqvae.quantizers.nearest import (
    code_statistics,
    nearest_codes,
    straight_through,
    unit_length,
)

# More points than this per code no longer move the k-means centres noticeably.
_KMEANS_POINTS_PER_CODE = 128


class CodebookQuantizer(Quantizer):
    """Nearest-code lookup with data-driven start and restarts of dead codes.

    A kind says where the code vectors live and how a batch moves them: `losses` for what gradient
    descent does, `absorb` for what happens by moving averages.
    """

    codebook: Tensor
    """float32 (K, D), a parameter or a buffer; read it through `vectors()`."""
    usage_average: Tensor
    """float32 (K,): moving average of how often a training batch chose each code."""

    def __init__(self, config: CodebookConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_dim = config.codebook_dim
        self.codebook_sizes = (config.codebook_size,)
        self.register_buffer("usage_average", torch.ones(config.codebook_size))
        self.set_progress(0.0)

    def vectors(self) -> Tensor:
        """The code vectors, float32 (K, D); of unit length with `cosine`."""
        return unit_length(self.codebook) if self.config.cosine else self.codebook

    @abstractmethod
    def losses(self, z: Tensor, z_q: Tensor) -> dict[str, Tensor]:
        """Weighted loss terms from points and their code vectors, (N, D) each."""

    @abstractmethod
    def replace(self, codes: Tensor, points: Tensor, count: Tensor) -> None:
        """Puts code vectors elsewhere, and every statistic about them with them.

        Args:
            codes: bool (K,), the codes to move.
            points: float32 (K, D), where to.
            count: float32 (), the usage they start with.
        """

    def absorb(self, sums: Tensor) -> None:
        """Moves the codebook by the sums (K, D) of a batch's points that chose each code.

        `usage_average` has absorbed their number already.
        """

    def forward(self, z_e: Tensor) -> QuantizerOutput:
        """Quantizes z_e; in training mode, also restarts dead codes and updates statistics."""
        with torch.autocast(z_e.device.type, enabled=False):
            z = self._points(z_e)  # (N, D)
            if self.training and self._restarting:
                self._restart_dead_codes(z.detach())
            vectors = self.vectors()
            codes = nearest_codes(z.detach(), vectors.detach())  # (N,)
            z_q = F.embedding(codes, vectors)  # (N, D)
            losses = self.losses(z, z_q)
            if self.training:
                self._update_statistics(z.detach(), codes)
            quantized = straight_through(z, z_q)
        batch, _, height, width = z_e.shape
        return QuantizerOutput(
            z_q=rearrange(quantized, "(b h w) d -> b d h w", b=batch, h=height),
            codes=(codes.view(batch, height, width),),
            losses=losses,
        )

    def encode(self, z_e: Tensor) -> tuple[Tensor, ...]:
        """The nearest code at each position: one int64 grid (B, h, w)."""
        with torch.autocast(z_e.device.type, enabled=False):
            codes = nearest_codes(self._points(z_e), self.vectors())
        return (codes.view(z_e.shape[0], *z_e.shape[2:]),)

    def decode(self, codes: tuple[Tensor, ...]) -> Tensor:
        """The code vectors of one grid (B, h, w): float32 (B, D, h, w)."""
        (grid,) = codes
        return rearrange(F.embedding(grid, self.vectors()), "b h w d -> b d h w")

    @torch.no_grad()
    def initialise(self, batches: Iterable[Tensor]) -> None:
        """Runs k-means on the z_e of `kmeans_batches` batches, or of all where there are fewer.

        Raises:
            ValueError: There are no batches.
        """
        if not self.config.kmeans_batches:
            return
        batch_points = [self._points(z_e) for z_e in islice(batches, self.config.kmeans_batches)]
        if not batch_points:
            raise ValueError("at least one batch is required to initialise a codebook, got none")
        points = torch.cat(batch_points)
        kept = torch.randperm(len(points), device=points.device)
        points = points[kept[: _KMEANS_POINTS_PER_CODE * self.config.codebook_size]]
        with torch.autocast(points.device.type, enabled=False):
            centres = broadcast(kmeans(points, self.config.codebook_size))
        batch_size = all_reduce_sum(centres.new_tensor(len(batch_points[0])))
        everything = torch.ones(len(centres), dtype=torch.bool, device=points.device)
        self.replace(everything, centres, batch_size / self.config.codebook_size)

    def set_progress(self, fraction: float) -> None:
        """Ends restarts once `restart_until` of training is done."""
        self._restarting = (
            self.config.restart_threshold > 0 and fraction < self.config.restart_until
        )

    def _points(self, z_e: Tensor) -> Tensor:
        points = rearrange(z_e.float(), "b d h w -> (b h w) d")
        return unit_length(points) if self.config.cosine else points

    @torch.no_grad()
    def _restart_dead_codes(self, z: Tensor) -> None:
        mean_usage = self.usage_average.mean()
        dead = self.usage_average < self.config.restart_threshold * mean_usage
        # One candidate per code, needed or not: cheaper than asking a GPU how many are dead.
        candidates = z[torch.randint(z.shape[0], (self.config.codebook_size,), device=z.device)]
        self.replace(dead, broadcast(candidates), mean_usage)

    @torch.no_grad()
    def _update_statistics(self, z: Tensor, codes: Tensor) -> None:
        counts, sums = code_statistics(z, codes, self.config.codebook_size)
        all_reduce_sum(counts)
        self.usage_average.lerp_(counts, 1 - self.config.decay)
        self.absorb(all_reduce_sum(sums))
