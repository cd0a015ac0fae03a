"""Vector quantization with a frozen codebook under one learned linear map.

Zhu et al. 2024, "Addressing representation collapse in vector quantized models with one linear
layer" (SimVQ).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stage1_vqvae.collectives import broadcast
from stage1_vqvae.quantizers.base import to_points
from stage1_vqvae.quantizers.codebook import CodebookQuantizer
from stage1_vqvae.quantizers.config import SimVQConfig
from stage1_vqvae.quantizers.nearest_codebook import quantize_nearest
from stage1_vqvae.quantizers.search import unit_length


class SimVQQuantizer(CodebookQuantizer):
    """Code vectors e_k = W c_k + b with c_k drawn once, W and b learned (section 4.1).

    A gradient to any code moves W and with it all of them, so that none is left behind; restarts
    and k-means are neither needed nor possible. The codebook loss trains W as it trains the codes
    of the VQ-VAE paper's equation 3. What we add is the start: b is the mean of z_e, and W gives
    the codes the covariance of z_e, without which a codebook much wider than z_e begins with the
    few codes next to the origin.
    """

    config: SimVQConfig

    def __init__(self, config: SimVQConfig) -> None:
        super().__init__(config, cosine=config.cosine)
        self.config = config
        self.is_straight_through = not config.rotation_trick
        self.num_fit_batches = config.moment_batches
        # The frozen normal vectors c.
        self.register_buffer("codebook", torch.randn(config.codebook_size, config.codebook_dim))
        self.transform = nn.Linear(config.codebook_dim, config.codebook_dim)
        nn.init.orthogonal_(self.transform.weight)
        nn.init.zeros_(self.transform.bias)
        # The loss alone says how large the code vectors are.
        self.transform.weight.no_weight_decay = True  # type: ignore[attr-defined]

    def vectors(self) -> Tensor:
        """Returns the code vectors, float32 (K, D); of unit length with `cosine`."""
        with torch.autocast(self.codebook.device.type, enabled=False):
            vectors: Tensor = self.transform(self.codebook)
        return unit_length(vectors) if self.config.cosine else vectors

    def quantize_points(self, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Takes the nearest code; the codebook term moves W and b, the commitment term z."""
        return quantize_nearest(z, self.vectors(), self.config, self.config.codebook_weight)

    @torch.no_grad()
    def fit(self, batches: list[Tensor]) -> None:
        """Gives the codes the mean and the covariance of the points of all batches."""
        z = torch.cat([to_points(batch) for batch in batches])
        deviations = z - z.mean(dim=0)
        covariance = deviations.T @ deviations / len(z)
        values, axes = torch.linalg.eigh(covariance.cpu())  # older versions of MPS have no eigh
        # A A^T is the covariance, and c has unit covariance.
        root = (axes * values.clamp(min=0).sqrt()).to(z.device)
        self.transform.weight.copy_(broadcast(root.contiguous()))
        self.transform.bias.copy_(broadcast(z.mean(dim=0)))
