"""Codebooks of the VQ-VAE paper, whose vectors follow z_e.

One step of training, z being the points z_e (N, D) of a batch and e_k the code vectors:

    e_k  <- a point of the batch, where code k is dead             restart_dead_codes
    k(z)  = argmin_k ||z - e_k||^2                                 quantize_nearest
    loss  = beta ||z - sg[e_k(z)]||^2 (+ ||sg[z] - e_k(z)||^2)
    z_q   = sg[e_k(z)] + (z - sg[z])
    N_k  <- decay N_k + (1 - decay) |{z: k(z) = k}|                update_usage
    e_k  <- m_k / N_k, the moving mean, or a step of the optimizer
"""

from __future__ import annotations

import torch
from torch import Tensor

from stage1_vqvae.collectives import broadcast
from stage1_vqvae.quantizers.anchors import anchor_points, anchor_rates
from stage1_vqvae.quantizers.codebook_config import LearnedCodebookConfig
from stage1_vqvae.quantizers.restarting_codebook import RestartingCodebookQuantizer


class LearnedCodebookQuantizer(RestartingCodebookQuantizer):
    """The nearest of K vectors that follow z, with restarts or anchors for unused codes."""

    config: LearnedCodebookConfig

    def __init__(self, config: LearnedCodebookConfig) -> None:
        super().__init__(config, cosine=config.cosine)
        self.is_straight_through = not config.rotation_trick
        if config.online_clustering and not config.kmeans_batches:
            # The start of CVQ-VAE: no code was used yet, so that the first batch moves all.
            self.usage_average.zero_()

    @torch.no_grad()
    def restart_dead_codes(self, z: Tensor) -> None:
        """Restarts dead codes, or moves each code to its anchor the further the less it is used."""
        if not self.config.online_clustering:
            super().restart_dead_codes(z)
            return
        rates = anchor_rates(self.usage_average, self.config.decay)  # (K,)
        anchors = broadcast(anchor_points(z, self.vectors(), cosine=self.config.cosine))
        moved = torch.lerp(self.codebook, anchors, rates[:, None])
        self.replace_all_codes(moved, self.usage_average)
