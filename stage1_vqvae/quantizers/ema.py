"""Vector quantization with a codebook of exponential moving averages.

van den Oord, Vinyals, Kavukcuoglu 2017, "Neural Discrete Representation Learning", appendix A.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stage1_vqvae.quantizers.config import EMAQuantizerConfig
from stage1_vqvae.quantizers.learned_codebook import LearnedCodebookQuantizer

# Below this usage m / N is lost in rounding; such a code stays where it is.
_SMALLEST_COUNT = 1e-6


class EMAQuantizer(LearnedCodebookQuantizer):
    """Each code is the moving mean of the z_e that chose it; no gradient reaches the codebook.

        N_i <- gamma N_i + (1 - gamma) n_i                        (equation 6)
        m_i <- gamma m_i + (1 - gamma) sum_j z_ij                 (equation 7)
        e_i <- m_i / N_i                                          (equation 8)

    N is `usage_average`. There is no Laplace smoothing of N (a later habit, not in the paper):
    m_i / N_i is a proper mean at any usage, and codes hardly used restart.
    """

    usage_sum: Tensor
    """float32 (K, D): m of equation 7."""

    def __init__(self, config: EMAQuantizerConfig) -> None:
        super().__init__(config)
        codebook = torch.randn(config.codebook_size, config.codebook_dim)
        self.register_buffer("codebook", codebook)
        self.register_buffer("usage_sum", codebook * self.usage_average[:, None])

    def losses(self, z: Tensor, z_q: Tensor) -> dict[str, Tensor]:
        """The commitment term beta (z_e - sg[e])^2, averaged over elements."""
        return {"commitment": self.config.commitment_weight * F.mse_loss(z, z_q.detach())}

    def absorb(self, sums: Tensor) -> None:
        """Equations 7 and 8; equation 6 has been done."""
        self.usage_sum.lerp_(sums, 1 - self.config.decay)
        used = (self.usage_average > _SMALLEST_COUNT)[:, None]
        means = self.usage_sum / self.usage_average.clamp(min=_SMALLEST_COUNT)[:, None]
        self.codebook.copy_(torch.where(used, means, self.codebook))

    def place(self, moved: Tensor, vectors: Tensor, usage: Tensor) -> None:
        """Moves codes together with both their statistics; else m / N would undo the move."""
        sums = vectors * usage[:, None]
        self.codebook.copy_(torch.where(moved[:, None], vectors, self.codebook))
        self.usage_sum.copy_(torch.where(moved[:, None], sums, self.usage_sum))
        self.usage_average.copy_(torch.where(moved, usage, self.usage_average))
