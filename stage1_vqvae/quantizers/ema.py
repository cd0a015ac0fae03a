"""Vector quantization with a codebook of exponential moving averages.

van den Oord, Vinyals, Kavukcuoglu 2017, "Neural Discrete Representation Learning", appendix A.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stage1_vqvae.collectives import all_reduce_sum
from stage1_vqvae.quantizers.config import EMAQuantizerConfig
from stage1_vqvae.quantizers.learned_codebook import LearnedCodebookQuantizer
from stage1_vqvae.quantizers.nearest_codebook import quantize_nearest
from stage1_vqvae.quantizers.search import code_sums

# Below this usage m / N is lost in rounding; such a code stays where it is.
_SMALLEST_COUNT = 1e-6


class EMAQuantizer(LearnedCodebookQuantizer):
    """Each code is the moving mean of the z_e that chose it; no gradient reaches the codebook.

        N_i <- gamma N_i + (1 - gamma) n_i                        (equation 6)
        m_i <- gamma m_i + (1 - gamma) sum_j z_ij                 (equation 7)
        e_i <- m_i / N_i                                          (equation 8)

    N is `usage_average`. N has no Laplace smoothing (a later habit, not in the paper): m_i / N_i is
    a proper mean at any usage, and codes hardly used restart.
    """

    usage_sum: Tensor
    """float32 (K, D): m of equation 7."""

    def __init__(self, config: EMAQuantizerConfig) -> None:
        super().__init__(config)
        codebook = torch.randn(config.codebook_size, config.codebook_dim)
        self.register_buffer("codebook", codebook)
        self.register_buffer("usage_sum", codebook * self.usage_average[:, None])

    def quantize_points(self, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Takes the nearest code, with the commitment term beta (z_e - sg[e])^2."""
        return quantize_nearest(z, self.vectors(), self.config)

    @torch.no_grad()
    def update_usage(self, z: Tensor, codes: Tensor) -> None:
        """Updates the usage and the codebook by equations 6 to 8."""
        super().update_usage(z, codes)
        sums = all_reduce_sum(code_sums(z, codes, self.config.codebook_size))
        self.usage_sum.lerp_(sums, 1 - self.config.decay)
        used = (self.usage_average > _SMALLEST_COUNT)[:, None]
        means = self.usage_sum / self.usage_average.clamp(min=_SMALLEST_COUNT)[:, None]
        self.codebook.copy_(torch.where(used, means, self.codebook))

    @torch.no_grad()
    def replace_codes(self, replaced: Tensor, vectors: Tensor, usage: Tensor) -> None:
        """Replaces codes together with both their statistics; else m / N would undo it."""
        super().replace_codes(replaced, vectors, usage)
        sums = vectors * usage[:, None]
        self.usage_sum.copy_(torch.where(replaced[:, None], sums, self.usage_sum))
