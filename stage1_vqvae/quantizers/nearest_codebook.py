"""Vector quantization proper: the nearest code vector, its loss terms and its gradient.

van den Oord, Vinyals, Kavukcuoglu 2017, "Neural Discrete Representation Learning", section 3.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stage1_vqvae.quantizers.codebook_config import NearestCodebookConfig
from stage1_vqvae.quantizers.entropy import entropy_penalty, squared_distance_logits
from stage1_vqvae.quantizers.estimators import rotate_through, straight_through
from stage1_vqvae.quantizers.search import nearest_codes


def quantize_nearest(
    z: Tensor, vectors: Tensor, config: NearestCodebookConfig, codebook_weight: float = 0.0
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Quantizes points by equation 3 of the paper, every term averaged over its elements.

    Args:
        z: float32 (N, D).
        vectors: float32 (K, D).
        config: The commitment weight beta, the gradient estimator and the entropy term.
        codebook_weight: Weight of ||sg[z] - e||^2; 0 where no gradient moves the vectors.

    Returns:
        z_q (N, D), codes int64 (N,) and weighted loss terms by name.
    """
    codes = nearest_codes(z.detach(), vectors.detach())
    z_q = F.embedding(codes, vectors)
    losses = {}
    if codebook_weight:
        losses["codebook"] = codebook_weight * F.mse_loss(z_q, z.detach())
    losses["commitment"] = config.commitment_weight * F.mse_loss(z, z_q.detach())
    if config.entropy_weight:
        # Of a copy: an EMA codebook moves before the gradient has passed.
        logits = squared_distance_logits(z, vectors.clone(), config.entropy_temperature)
        losses["entropy"] = config.entropy_weight * entropy_penalty(logits)
    estimator = rotate_through if config.rotation_trick else straight_through
    return estimator(z, z_q), codes, losses
