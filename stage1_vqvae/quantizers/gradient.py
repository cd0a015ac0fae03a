"""Vector quantization with a codebook learned by gradient descent.

van den Oord, Vinyals, Kavukcuoglu 2017, "Neural Discrete Representation Learning", equation 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.quantizers.config import GradientQuantizerConfig
from stage1_vqvae.quantizers.learned_codebook import LearnedCodebookQuantizer


class GradientQuantizer(LearnedCodebookQuantizer):
    """The paper's loss ||sg[z_e] - e||^2 + beta ||z_e - sg[e]||^2, averaged over elements."""

    config: GradientQuantizerConfig

    def __init__(self, config: GradientQuantizerConfig) -> None:
        super().__init__(config)
        self.codebook = nn.Parameter(torch.randn(config.codebook_size, config.codebook_dim))
        # Equation 3 alone moves the codes: AdamW must not pull them to the origin besides.
        self.codebook.no_weight_decay = True  # type: ignore[attr-defined]

    def losses(self, z: Tensor, z_q: Tensor) -> dict[str, Tensor]:
        """The codebook term moves the codes only, the commitment term the encoder only."""
        return {
            "codebook": self.config.codebook_weight * F.mse_loss(z_q, z.detach()),
            "commitment": self.config.commitment_weight * F.mse_loss(z, z_q.detach()),
        }

    @torch.no_grad()
    def place(self, moved: Tensor, vectors: Tensor, usage: Tensor) -> None:
        """Moves codes and resets how often they are used.

        The optimizer's moments of a moved code stay; a code is dead after hundreds of steps without
        gradient, so that they are close to zero.
        """
        self.codebook.copy_(torch.where(moved[:, None], vectors, self.codebook))
        self.usage_average.copy_(torch.where(moved, usage, self.usage_average))
