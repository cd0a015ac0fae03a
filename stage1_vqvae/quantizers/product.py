"""Product quantization: the dimensions are cut into groups, each with codes of its own.

Jégou et al. 2011, "Product quantization for nearest neighbor search", section II.B.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stage1_vqvae.quantizers.base import Quantizer, QuantizerOutput
from stage1_vqvae.quantizers.composite import CompositeQuantizer
from stage1_vqvae.quantizers.config import ProductConfig


class ProductQuantizer(CompositeQuantizer):
    """G quantizers of D / G dimensions each, which have K^G combinations of codes.

    Loss terms are averaged over the groups, hence over all elements of z_e.
    """

    def __init__(self, config: ProductConfig, quantizers: list[Quantizer]) -> None:
        super().__init__(quantizers)
        self.config = config
        self.groups = nn.ModuleList(quantizers)
        self.codebook_dim = config.codebook_dim

    def to_code_space(self, z_e: Tensor) -> Tensor:
        """Maps each group's channels to its code space."""
        return torch.cat([group.to_code_space(z) for group, z in self._split(z_e)], dim=1)

    def quantize(self, z: Tensor) -> QuantizerOutput:
        """See `Quantizer.quantize`."""
        outputs = [group.quantize(part) for group, part in self._split(z)]
        return QuantizerOutput(
            z_q=torch.cat([output.z_q for output in outputs], dim=1),
            codes=tuple(grid for output in outputs for grid in output.codes),
            losses={
                name: torch.stack([output.losses[name] for output in outputs]).mean()
                for name in outputs[0].losses
            },
        )

    def assign(self, z: Tensor) -> tuple[Tensor, ...]:
        """See `Quantizer.assign`."""
        return tuple(grid for group, part in self._split(z) for grid in group.assign(part))

    def decode(self, codes: tuple[Tensor, ...]) -> Tensor:
        """Concatenates the groups' vectors: float32 (B, D, h, w)."""
        parts = zip(self._parts, codes, strict=True)
        return torch.cat([group.decode((grid,)) for group, grid in parts], dim=1)

    def code_vectors(self) -> tuple[Tensor, ...]:
        """Returns each group's code vectors, float32 (K, D / G)."""
        return tuple(vectors for group in self._parts for vectors in group.code_vectors())

    def fit(self, batches: list[Tensor]) -> None:
        """Fits each group to its channels."""
        split = [self._split(z) for z in batches]
        for i, group in enumerate(self._parts):
            group.fit([parts[i][1] for parts in split])

    def _split(self, z: Tensor) -> list[tuple[Quantizer, Tensor]]:
        """Pairs each group with its channels of (B, D, h, w)."""
        return list(zip(self._parts, z.chunk(len(self._parts), dim=1), strict=True))
