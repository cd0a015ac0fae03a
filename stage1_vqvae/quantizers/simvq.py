"""Vector quantization with a frozen codebook under one learned linear map.

Zhu et al. 2024, "Addressing representation collapse in vector quantized models with one linear
layer" (SimVQ).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.quantizer_config import SimVQConfig
from stage1_vqvae.quantizers.nearest import unit_length
from stage1_vqvae.quantizers.nearest_codebook import NearestCodebookQuantizer


class SimVQQuantizer(NearestCodebookQuantizer):
    """Code vectors e_k = W c_k with c_k drawn once and W learned (section 4.1).

    A gradient to any code moves W and with it all of them, so that none is left behind; restarts
    and k-means are neither needed nor possible. The codebook loss trains W as it trains the codes
    of the VQ-VAE paper's equation 3.
    """

    config: SimVQConfig
    codebook: Tensor
    """float32 (K, D), frozen normal vectors c."""

    def __init__(self, config: SimVQConfig) -> None:
        super().__init__(config)
        self.register_buffer("codebook", torch.randn(config.codebook_size, config.codebook_dim))
        self.transform = nn.Linear(config.codebook_dim, config.codebook_dim, bias=False)
        nn.init.orthogonal_(self.transform.weight)
        # The loss alone says how large the code vectors are.
        self.transform.weight.no_weight_decay = True  # type: ignore[attr-defined]

    def vectors(self) -> Tensor:
        """The code vectors, float32 (K, D); of unit length with `cosine`."""
        with torch.autocast(self.codebook.device.type, enabled=False):
            vectors: Tensor = self.transform(self.codebook)
        return unit_length(vectors) if self.config.cosine else vectors

    def losses(self, z: Tensor, z_q: Tensor) -> dict[str, Tensor]:
        """The codebook term moves the linear map only, the commitment term the encoder only."""
        return {
            "codebook": self.config.codebook_weight * F.mse_loss(z_q, z.detach()),
            "commitment": self.config.commitment_weight * F.mse_loss(z, z_q.detach()),
        }
