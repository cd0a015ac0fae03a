"""Codebooks trained through soft assignments: k-means at the start, restarts of dead codes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn

from stage1_vqvae.collectives import all_reduce_sum, broadcast
from stage1_vqvae.quantizers.base import QuantizerOutput, to_points
from stage1_vqvae.quantizers.codebook import CodebookQuantizer
from stage1_vqvae.quantizers.codebook_config import SoftCodebookConfig
from stage1_vqvae.quantizers.kmeans import kmeans_of_batches
from stage1_vqvae.quantizers.restarts import dead_codes, random_points
from stage1_vqvae.quantizers.search import scaled_usage
from stage1_vqvae.quantizers.usage import code_counts


class SoftCodebookQuantizer(CodebookQuantizer):
    """K trained vectors that lie where z is, so that they can start and restart from it.

    A soft assignment gives a gradient to every code, but to one far from all z hardly any: it stays
    dead unless it is moved. A kind says in `quantize_points` how codes are assigned.
    """

    copies_gradient = False
    config: SoftCodebookConfig
    usage_average: Tensor
    """float32 (K,): moving average of how often a training batch, over all processes, chose each
    code."""

    def __init__(self, config: SoftCodebookConfig, *, cosine: bool = False) -> None:
        super().__init__(config.codebook_size, config.codebook_dim, cosine=cosine)
        self.config = config
        self.num_fit_batches = config.kmeans_batches
        self.codebook = nn.Parameter(torch.randn(config.codebook_size, config.codebook_dim))
        self.codebook.no_weight_decay = True  # type: ignore[attr-defined]
        self.register_buffer("usage_average", torch.ones(config.codebook_size))
        self.set_progress(0.0)

    def quantize(self, z: Tensor) -> QuantizerOutput:
        """See `Quantizer.quantize`; in training mode, also restarts dead codes."""
        if self.training and self._restarting:
            self._restart_dead_codes(to_points(z.detach()))
        output = super().quantize(z)
        if self.training:
            self._observe(output.codes[0])
        return output

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Runs k-means on the points of `kmeans_batches` batches, or of all where there are fewer.

        Raises:
            ValueError: There are no batches.
        """
        if self.config.kmeans_batches:
            points = [to_points(z) for z in islice(batches, self.config.kmeans_batches)]
            self.codebook.copy_(
                kmeans_of_batches(points, self.config.codebook_size, spherical=self._cosine)
            )
            self.start_from(torch.cat(points))

    def scale_usage(self, num_points: int) -> None:
        """See `Quantizer.scale_usage`."""
        self.usage_average.copy_(scaled_usage(self.usage_average, num_points))

    def start_from(self, z: Tensor) -> None:
        """Starts what else a kind learns, from the points (N, D) of the codebook's start."""

    def set_progress(self, fraction: float) -> None:
        """Ends restarts once `restart_until` of training is done."""
        self._restarting = (
            self.config.restart_threshold > 0 and fraction < self.config.restart_until
        )

    @torch.no_grad()
    def _restart_dead_codes(self, z: Tensor) -> None:
        dead = dead_codes(self.usage_average, self.config.restart_threshold)  # (K,)
        candidates = broadcast(random_points(z, len(dead)))
        self.codebook.copy_(torch.where(dead[:, None], candidates, self.codebook))
        mean = self.usage_average.mean()
        self.usage_average.copy_(torch.where(dead, mean, self.usage_average))

    @torch.no_grad()
    def _observe(self, codes: Tensor) -> None:
        counts = code_counts(codes, self.config.codebook_size).to(self.usage_average.dtype)
        self.usage_average.lerp_(all_reduce_sum(counts), 1 - self.config.decay)
