"""Index back-propagation: every choice has a gradient for every code vector.

Shi et al. 2024, "Taming scalable visual tokenizer for autoregressive image generation" (IBQ).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stage1_vqvae.quantizers.codebook import trained_codebook
from stage1_vqvae.quantizers.config import IndexBackpropConfig
from stage1_vqvae.quantizers.entropy import entropy_penalty
from stage1_vqvae.quantizers.estimators import index_through
from stage1_vqvae.quantizers.restarting_codebook import RestartingCodebookQuantizer


class IndexBackpropQuantizer(RestartingCodebookQuantizer):
    """The code most similar to z_e, argmax z_e . e, with the softmax's gradient (equations 3, 4).

    The softmax has a temperature, 1 in the paper: similarities of unit vectors differ too little.

    The loss is the double quantization loss of the paper's equation 5 as its authors compute it,
    every term averaged over elements:

        ||z_e - z_q||^2 + ||z_e - sg[e]||^2 + beta ||sg[z_e] - e||^2

    z_q and e have one value, but the gradient of the first term runs through the index to all code
    vectors. The entropy regularisation is that of equation 6.
    """

    config: IndexBackpropConfig
    is_straight_through = False

    def __init__(self, config: IndexBackpropConfig) -> None:
        super().__init__(config, cosine=config.cosine)
        self.codebook = trained_codebook(config)

    def scores(self) -> tuple[Tensor, Tensor]:
        """Returns weights and bias of the similarity z_e . e."""
        vectors = self.vectors()
        return vectors, vectors.new_zeros(len(vectors))

    def quantize_points(self, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """See `CodebookQuantizer.quantize_points`."""
        config, vectors = self.config, self.vectors()
        logits = z @ vectors.T  # (N, K)
        codes = logits.argmax(dim=1)
        chosen = F.embedding(codes, vectors)
        z_q = index_through(codes, (logits / config.temperature).softmax(dim=1), vectors)
        losses = {
            "index": F.mse_loss(z, z_q),
            "commitment": config.commitment_weight * F.mse_loss(z, chosen.detach()),
            "codebook": config.codebook_weight * F.mse_loss(chosen, z.detach()),
        }
        if config.entropy_weight:
            penalty = entropy_penalty(logits / config.entropy_temperature)
            losses["entropy"] = config.entropy_weight * penalty
        return z_q, codes, losses
