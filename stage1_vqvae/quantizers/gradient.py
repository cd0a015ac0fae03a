"""Vector quantization with a codebook learned by gradient descent.

van den Oord, Vinyals, Kavukcuoglu 2017, "Neural Discrete Representation Learning", equation 3.
"""

from __future__ import annotations

from torch import Tensor

from stage1_vqvae.quantizers.codebook import trained_codebook
from stage1_vqvae.quantizers.config import GradientQuantizerConfig
from stage1_vqvae.quantizers.learned_codebook import LearnedCodebookQuantizer
from stage1_vqvae.quantizers.nearest_codebook import quantize_nearest


class GradientQuantizer(LearnedCodebookQuantizer):
    """The paper's loss ||sg[z_e] - e||^2 + beta ||z_e - sg[e]||^2, averaged over elements.

    The codebook term moves the codes only, the commitment term the encoder only.
    """

    config: GradientQuantizerConfig

    def __init__(self, config: GradientQuantizerConfig) -> None:
        super().__init__(config)
        self.codebook = trained_codebook(config)

    def quantize_points(self, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """See `CodebookQuantizer.quantize_points`."""
        return quantize_nearest(z, self.vectors(), self.config, self.config.codebook_weight)
