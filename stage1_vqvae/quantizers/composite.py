"""Base class of the quantizers that are made of others."""

from __future__ import annotations

from stage1_vqvae.quantizers.base import Quantizer


class CompositeQuantizer(Quantizer):
    """Several quantizers of equal settings, each with a grid of codes of its own.

    Args:
        parts: The quantizers. A subclass registers them as modules under a name of its own.
    """

    def __init__(self, parts: list[Quantizer]) -> None:
        super().__init__()
        self._parts = tuple(parts)
        self.codebook_sizes = tuple(size for part in parts for size in part.codebook_sizes)
        self.num_fit_batches = parts[0].num_fit_batches
        self.is_straight_through = parts[0].is_straight_through

    def scale_usage(self, num_points: int) -> None:
        """See `Quantizer.scale_usage`."""
        for part in self._parts:
            part.scale_usage(num_points)

    def set_progress(self, fraction: float) -> None:
        """See `Quantizer.set_progress`."""
        for part in self._parts:
            part.set_progress(fraction)
