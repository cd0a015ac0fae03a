"""Codebooks that start where z_e is, by k-means, and restart the codes that hardly any z_e uses."""

from __future__ import annotations

import torch
from torch import Tensor

from stage1_vqvae.collectives import all_reduce_sum, broadcast
from stage1_vqvae.quantizers.base import QuantizerOutput, to_points
from stage1_vqvae.quantizers.codebook import CodebookQuantizer
from stage1_vqvae.quantizers.codebook_config import LearnedCodebookConfig, SoftCodebookConfig
from stage1_vqvae.quantizers.kmeans import kmeans_of_sample
from stage1_vqvae.quantizers.usage import code_counts


def random_points(z: Tensor, count: int) -> Tensor:
    """Samples `count` of the points z (N, D), without replacement where N is large enough."""
    if count <= len(z):
        return z[torch.randperm(len(z), device=z.device)[:count]]
    return z[torch.randint(len(z), (count,), device=z.device)]


class RestartingCodebookQuantizer(CodebookQuantizer):
    """Code vectors that lie where z is, so that they can start and restart from it."""

    config: LearnedCodebookConfig | SoftCodebookConfig
    usage_average: Tensor
    """float32 (K,): moving average of how often a training batch, over all processes, chose each
    code."""

    def __init__(
        self, config: LearnedCodebookConfig | SoftCodebookConfig, *, cosine: bool = False
    ) -> None:
        super().__init__(config, cosine=cosine)
        self.config = config
        self.num_fit_batches = config.kmeans_batches
        self.register_buffer("usage_average", torch.ones(config.codebook_size))
        self._restarts = config.restart_until > 0

    def quantize(self, z: Tensor) -> QuantizerOutput:
        """See `Quantizer.quantize`; in training mode, restarts dead codes and updates the usage."""
        if not self.training:
            return super().quantize(z)
        points = to_points(z.detach())
        if self._restarts:
            self.restart_dead_codes(points)
        output = super().quantize(z)
        self.update_usage(points, output.codes[0].flatten())
        return output

    @torch.no_grad()
    def fit(self, batches: list[Tensor]) -> None:
        """Moves the codes to the k-means centres of the points of all batches."""
        points = torch.cat([to_points(z) for z in batches])
        centres = kmeans_of_sample(points, self.config.codebook_size, spherical=self._cosine)
        self.replace_all_codes(centres, self.usage_average)

    @torch.no_grad()
    def scale_usage(self, num_points: int) -> None:
        """Scales the usage to a sum of `num_points`; it stays 0 where all is."""
        scale = num_points / self.usage_average.sum().clamp(min=1e-30)
        self.replace_all_codes(self.codebook, self.usage_average * scale)

    def set_progress(self, fraction: float) -> None:
        """Ends restarts once `restart_until` of training is done."""
        self._restarts = fraction < self.config.restart_until

    @torch.no_grad()
    def restart_dead_codes(self, z: Tensor) -> None:
        """Moves dead codes to random ones of the points z (N, D), with the mean usage."""
        if not self.config.restart_threshold:
            return
        mean = self.usage_average.mean()
        dead = self.usage_average < self.config.restart_threshold * mean  # (K,)
        # One candidate per code, needed or not: cheaper than asking a GPU how many are dead.
        candidates = broadcast(random_points(z, len(dead)))
        self.replace_codes(dead, candidates, mean.expand(len(dead)))

    @torch.no_grad()
    def update_usage(self, z: Tensor, codes: Tensor) -> None:
        """Updates the moving statistics from points z (N, D) and the codes (N,) they chose."""
        counts = code_counts(codes, self.config.codebook_size).to(z.dtype)
        self.usage_average.lerp_(all_reduce_sum(counts), 1 - self.config.decay)

    @torch.no_grad()
    def replace_codes(self, replaced: Tensor, vectors: Tensor, usage: Tensor) -> None:
        """Replaces code vectors, and every statistic about them.

        The optimizer's moments of a trained code stay; a code is dead after hundreds of steps
        with hardly any gradient, so that they are close to zero.

        Args:
            replaced: bool (K,), which codes.
            vectors: float32 (K, D), the new code vectors.
            usage: float32 (K,), their usage.
        """
        self.codebook.copy_(torch.where(replaced[:, None], vectors, self.codebook))
        self.usage_average.copy_(torch.where(replaced, usage, self.usage_average))

    def replace_all_codes(self, vectors: Tensor, usage: Tensor) -> None:
        """See `replace_codes`."""
        self.replace_codes(torch.ones_like(usage, dtype=torch.bool), vectors, usage)
