"""Entropy regularisation: certain assignments of each z_e, all codes in use."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stage1_vqvae.quantizers.search import half_squared_norms


def entropy_penalty(logits: Tensor) -> Tensor:
    """Returns E[H(p(c | z))] - H(E[p(c | z)]), minus the mutual information of c and z, in nats.

    Yu et al. 2023, "Language model beats diffusion: tokenizer is key to visual generation",
    equation 4; the expectation is over the points of one process's batch.

    Args:
        logits: float32 (N, K), of p(c | z) = softmax.

    Returns:
        float32 (), in [-ln K, 0].
    """
    log_p = logits.log_softmax(dim=1)
    p = log_p.exp()
    conditional = -(p * log_p).sum(dim=1).mean()
    return conditional - entropy(p.mean(dim=0))


def squared_distance_logits(z: Tensor, vectors: Tensor, temperature: float) -> Tensor:
    """Returns -||z - e_k||^2 / temperature up to what is equal for all k: float32 (N, K)."""
    scale = 2 / temperature
    return torch.addmm(half_squared_norms(vectors), z, vectors.T, beta=-scale, alpha=scale)


def binary_entropy_penalty(logits: Tensor) -> Tensor:
    """Returns `entropy_penalty` over all 2^D codes of D independent bits without an (N, 2^D) block.

    The entropy of independent bits is the sum of theirs. The mean distribution over codes does not
    factorise, but is a product of two matrices: with the bits cut in two halves of which A (N,
    2^(D/2)) and B hold the probabilities, E[p] = A^T B / N.

    Args:
        logits: float32 (N, D), log-odds of each bit being 1.

    Returns:
        float32 (), in [-D ln 2, 0].
    """
    p = torch.stack([torch.sigmoid(-logits), torch.sigmoid(logits)], dim=2)  # (N, D, 2)
    # H of a bit, ln(1 + e^l) - l sigmoid(l): no logarithm of a probability that rounds to 0.
    bit_entropies: Tensor = F.softplus(logits) - logits * p[:, :, 1]
    conditional = bit_entropies.sum(dim=1).mean()
    middle = logits.shape[1] // 2
    mean = _joint(p[:, :middle]).T @ _joint(p[:, middle:]) / len(logits)
    return conditional - entropy(mean)


def entropy(p: Tensor) -> Tensor:
    """Returns -sum p ln p of one distribution of any shape, in nats: float32 ().

    A probability of 0 adds nothing and has a finite gradient.
    """
    return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum()


def _joint(p: Tensor) -> Tensor:
    """Returns the probabilities (N, 2^D) of all combinations of independent bits (N, D, 2)."""
    joint = p.new_ones(len(p), 1)
    for bit in p.unbind(dim=1):
        joint = (joint[:, :, None] * bit[:, None, :]).flatten(1)
    return joint
