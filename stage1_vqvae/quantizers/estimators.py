"""Gradient estimators for the choice of a code, which has no gradient of its own.

Each estimator adds an exact zero that carries a gradient, x - sg[x], to the value. The usual
z_e + sg[z_q - z_e] rounds; with the exact zero, training decodes the very vectors that codes stand
for.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Bounds the factor |z_q| / |z_e| of a gradient.
_SHORTEST = 1e-6


def with_gradient_of(value: Tensor, carrier: Tensor) -> Tensor:
    """Returns `value` with the gradient of `carrier` added to its own."""
    return value + (carrier - carrier.detach()) if carrier.requires_grad else value


def straight_through(z_e: Tensor, z_q: Tensor) -> Tensor:
    """Returns z_q with the gradient copied to z_e unchanged (VQ-VAE paper, section 3.2)."""
    return with_gradient_of(z_q.detach(), z_e)


def rotate_through(z_e: Tensor, z_q: Tensor) -> Tensor:
    """Returns z_q with the gradient carried to z_e by a rotation and a scaling.

    Fifty et al. 2024, "Restructuring vector quantization with the rotation trick", equation 5: with
    unit vectors e of z_e and q of z_q, r = (e + q) / |e + q| and everything but z_e constant,

        z_q = (|z_q| / |z_e|) (z_e - 2 r (r . z_e) + 2 q (e . z_e))

    so that the angle between gradient and z_q is the one it arrives at z_e with. Where z_e points
    exactly away from z_q, r is 0 / 0 and taken as 0: a reflection instead of a rotation. A |z_e|
    below 1e-6 counts as 1e-6, as in vector-quantize-pytorch. z_e and z_q are (N, D).
    """
    e, q = F.normalize(z_e.detach(), dim=-1), F.normalize(z_q.detach(), dim=-1)
    r = F.normalize(e + q, dim=-1)
    length = z_e.detach().norm(dim=-1, keepdim=True).clamp(min=_SHORTEST)
    scale = z_q.detach().norm(dim=-1, keepdim=True) / length
    reflected = z_e - 2 * r * (r * z_e).sum(dim=-1, keepdim=True)
    rotated = reflected + 2 * q * (e * z_e).sum(dim=-1, keepdim=True)
    return with_gradient_of(z_q.detach(), scale * rotated)


def index_through(codes: Tensor, probabilities: Tensor, vectors: Tensor) -> Tensor:
    """Returns the chosen vectors with gradients to them and to the probabilities of choosing.

    (onehot(c) + p - sg[p]) E without the one-hot: the forward value is a row of E, and p gets the
    gradient of the mean p E (Jang et al. 2017, section 2.2; Shi et al. 2024, equation 4).

    Args:
        codes: int64 (N,).
        probabilities: (N, K).
        vectors: E, (K, D).

    Returns:
        (N, D).
    """
    return with_gradient_of(F.embedding(codes, vectors), probabilities @ vectors.detach())


def gumbel_softmax(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Returns softmax((logits + g) / temperature) with Gumbel noise g: float32 (N, K).

    Its largest entry is a sample from softmax(logits) (Jang et al. 2017, equations 1 and 2).
    """
    noise = -torch.empty_like(logits).exponential_().log_()
    return ((logits + noise) / temperature).softmax(dim=1)


def straight_through_gumbel(
    logits: Tensor, vectors: Tensor, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Samples codes from softmax(logits) by the straight-through Gumbel-softmax.

    Args:
        logits: float32 (N, K).
        vectors: float32 (K, D).
        temperature: Softens the gradient, not the sample.

    Returns:
        The vectors of the codes (N, D) with the gradient of the Gumbel-softmax, and the codes,
        int64 (N,).
    """
    probabilities = gumbel_softmax(logits, temperature)
    codes = probabilities.detach().argmax(dim=1)
    return index_through(codes, probabilities, vectors), codes


def annealed_temperature(start: float, end: float, fraction: float) -> float:
    """Returns start^(1 - t) end^t: falls geometrically from t = 0 to t = 1, the `fraction`."""
    return float(start ** (1 - fraction) * end**fraction)
