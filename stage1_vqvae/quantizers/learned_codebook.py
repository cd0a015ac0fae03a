"""Codebooks that start where z_e is and follow it: k-means, usage, restarts, anchors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor

from stage1_vqvae.collectives import all_reduce_sum, broadcast
from stage1_vqvae.quantizers.anchors import anchor_points, anchor_rates
from stage1_vqvae.quantizers.base import to_points
from stage1_vqvae.quantizers.codebook_config import LearnedCodebookConfig
from stage1_vqvae.quantizers.kmeans import kmeans_of_batches
from stage1_vqvae.quantizers.nearest_codebook import NearestCodebookQuantizer
from stage1_vqvae.quantizers.restarts import dead_codes, random_points
from stage1_vqvae.quantizers.search import code_statistics, scaled_usage, unit_length


class LearnedCodebookQuantizer(NearestCodebookQuantizer):
    """Nearest-code lookup with a data-driven start and a second life for unused codes.

    A kind says where the code vectors live and how a batch moves them: `losses` for what gradient
    descent does, `absorb` for what happens by moving averages.
    """

    config: LearnedCodebookConfig
    codebook: Tensor
    """float32 (K, D), a parameter or a buffer; read it through `vectors()`."""
    usage_average: Tensor
    """float32 (K,): moving average of how often a training batch, over all processes, chose each
    code."""

    def __init__(self, config: LearnedCodebookConfig) -> None:
        super().__init__(config)
        self.num_fit_batches = config.kmeans_batches
        # The start of CVQ-VAE: no code was used yet, so that the first batch draws all to anchors.
        starts_unused = config.online_clustering and not config.kmeans_batches
        usage = (torch.zeros if starts_unused else torch.ones)(config.codebook_size)
        self.register_buffer("usage_average", usage)
        self.set_progress(0.0)

    def vectors(self) -> Tensor:
        """The code vectors, float32 (K, D); of unit length with `cosine`."""
        return unit_length(self.codebook) if self.config.cosine else self.codebook

    @abstractmethod
    def place(self, moved: Tensor, vectors: Tensor, usage: Tensor) -> None:
        """Puts code vectors elsewhere, and every statistic about them with them.

        Args:
            moved: bool (K,), the codes to move.
            vectors: float32 (K, D), where to.
            usage: float32 (K,), how often each moved code counts as used.
        """

    def absorb(self, sums: Tensor) -> None:
        """Moves the codebook by the sums (K, D) of a batch's points that chose each code.

        `usage_average` has absorbed their number already.
        """

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Runs k-means on the points of `kmeans_batches` batches, or of all where there are fewer.

        Raises:
            ValueError: There are no batches.
        """
        if not self.config.kmeans_batches:
            return
        points = [to_points(z) for z in islice(batches, self.config.kmeans_batches)]
        centres = kmeans_of_batches(points, self.config.codebook_size, spherical=self.config.cosine)
        self._place_all(centres, self.usage_average)

    @torch.no_grad()
    def scale_usage(self, num_points: int) -> None:
        """See `Quantizer.scale_usage`."""
        self._place_all(self.codebook, scaled_usage(self.usage_average, num_points))

    def set_progress(self, fraction: float) -> None:
        """Ends restarts and anchors once `restart_until` of training is done."""
        self._reviving = fraction < self.config.restart_until

    @torch.no_grad()
    def revive(self, z: Tensor) -> None:
        """Restarts dead codes, or draws all codes to anchors as far as they are unused."""
        if not self._reviving:
            return
        if self.config.online_clustering:
            self._follow_anchors(z)
        elif self.config.restart_threshold:
            self._restart_dead_codes(z)

    @torch.no_grad()
    def observe(self, z: Tensor, codes: Tensor) -> None:
        """Updates the moving statistics, and the codebook as far as it follows them."""
        counts, sums = code_statistics(z, codes, self.config.codebook_size)
        all_reduce_sum(counts)
        self.usage_average.lerp_(counts, 1 - self.config.decay)
        self.absorb(all_reduce_sum(sums))

    def _restart_dead_codes(self, z: Tensor) -> None:
        dead = dead_codes(self.usage_average, self.config.restart_threshold)  # (K,)
        # One candidate per code, needed or not: cheaper than asking a GPU how many are dead.
        candidates = broadcast(random_points(z, len(dead)))
        self.place(dead, candidates, self.usage_average.mean().expand(len(dead)))

    def _follow_anchors(self, z: Tensor) -> None:
        rates = anchor_rates(self.usage_average, self.config.decay)  # (K,)
        anchors = broadcast(anchor_points(z, self.vectors(), cosine=self.config.cosine))
        vectors = torch.lerp(self.codebook, anchors, rates[:, None])
        self._place_all(vectors, self.usage_average)

    def _place_all(self, vectors: Tensor, usage: Tensor) -> None:
        self.place(torch.ones_like(usage, dtype=torch.bool), vectors, usage)
