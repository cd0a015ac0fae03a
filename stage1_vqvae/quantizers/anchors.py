"""Online clustering: unused codes move to points of the batch.

Zheng and Vedaldi 2023, "Online clustered codebook" (CVQ-VAE).
"""

from __future__ import annotations

import torch
from torch import Tensor

from stage1_vqvae.quantizers.search import block_entries, half_squared_norms


def anchor_rates(usage: Tensor, decay: float) -> Tensor:
    """Returns how far each code moves to its anchor: a_k = exp(-10 N_k K / (1 - decay) - 0.001).

    Equation 5 of the paper, N_k being the share of points that chose code k: a code used a
    hundredth as often as the average moves by exp(-10), one never used goes all the way.

    Args:
        usage: float32 (K,), how often each code is used, in any unit; all 0 at the start.
        decay: Of the moving average `usage`.

    Returns:
        float32 (K,) in [0, 1).
    """
    share = usage / usage.sum().clamp(min=torch.finfo(usage.dtype).tiny)
    return torch.exp(-10 * share * len(usage) / (1 - decay) - 1e-3)


def anchor_points(z: Tensor, vectors: Tensor, *, cosine: bool = False) -> Tensor:
    """Samples one point of the batch per code, the likelier the nearer.

    The probabilistic random anchors of the paper's section 3.2: p(i | k) is the softmax over i of
    -|z_i - e_k|^2, or of the cosine z_i . e_k, as in the authors' code. The sample is the argmax
    with Gumbel noise added, block by block of codes.

    Args:
        z: float32 (N, D).
        vectors: float32 (K, D).
        cosine: Whether both have unit length and are compared by the cosine.

    Returns:
        float32 (K, D).
    """
    half_norms = half_squared_norms(z)  # (N,)
    scale = 1 if cosine else 2  # -|z - e|^2 = 2 z . e - 2 for unit vectors
    rows = max(1, block_entries(z.device) // len(z))
    chosen = []
    for block in torch.split(vectors, rows):
        logits = torch.addmm(half_norms, block, z.T, beta=-scale, alpha=scale)  # (rows, N)
        noise = torch.empty_like(logits).exponential_().log_()  # minus a Gumbel variable
        chosen.append((logits - noise).argmax(dim=1))
    return z[torch.cat(chosen)]
