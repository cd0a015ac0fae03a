"""Product quantization: the dimensions are cut into groups, each with codes of its own.

Jégou et al. 2011, "Product quantization for nearest neighbor search", section II.B.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn

from stage1_vqvae.quantizers.base import Quantizer, QuantizerOutput
from stage1_vqvae.quantizers.config import ProductConfig


class ProductQuantizer(Quantizer):
    """G quantizers of D / G dimensions side by side, which have K^G combinations.

    Loss terms are averaged over the groups, hence over all elements of z_e.

    Args:
        config: The groups.
        quantizers: A quantizer for each group.
    """

    def __init__(self, config: ProductConfig, quantizers: list[Quantizer]) -> None:
        super().__init__()
        self.config = config
        self.groups = nn.ModuleList(quantizers)
        self.codebook_dim = config.codebook_dim
        self.codebook_sizes = tuple(size for group in quantizers for size in group.codebook_sizes)
        self.num_fit_batches = quantizers[0].num_fit_batches
        self.copies_gradient = quantizers[0].copies_gradient

    def to_code_space(self, z_e: Tensor) -> Tensor:
        """Each group's."""
        parts = self._split(z_e)
        return torch.cat([g.to_code_space(z) for g, z in zip(self._all(), parts, strict=True)], 1)

    def quantize(self, z: Tensor) -> QuantizerOutput:
        """See `Quantizer.quantize`."""
        outputs = [g.quantize(part) for g, part in zip(self._all(), self._split(z), strict=True)]
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
        parts = self._split(z)
        return tuple(
            grid for g, part in zip(self._all(), parts, strict=True) for grid in g.assign(part)
        )

    def decode(self, codes: tuple[Tensor, ...]) -> Tensor:
        """The groups' vectors side by side: float32 (B, D, h, w)."""
        return torch.cat([g.decode((c,)) for g, c in zip(self._all(), codes, strict=True)], dim=1)

    def code_vectors(self) -> tuple[Tensor, ...]:
        """Each group's, float32 (K, D / G)."""
        return tuple(vectors for group in self._all() for vectors in group.code_vectors())

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fits each group to its dimensions."""
        kept = [self._split(z) for z in islice(batches, self.num_fit_batches)]
        for i, group in enumerate(self._all()):
            group.fit(parts[i] for parts in kept)

    def scale_usage(self, num_points: int) -> None:
        """Passes the number on."""
        for group in self._all():
            group.scale_usage(num_points)

    def set_progress(self, fraction: float) -> None:
        """Passes the fraction on."""
        for group in self._all():
            group.set_progress(fraction)

    def _split(self, z: Tensor) -> tuple[Tensor, ...]:
        return z.chunk(len(self.groups), dim=1)

    def _all(self) -> list[Quantizer]:
        return list(self.groups)  # type: ignore[arg-type] # ModuleList forgets what it holds
