"""Quantizers to compare: the recommended settings of each kind with as many codes in all."""

from __future__ import annotations

from collections.abc import Callable

from stage1_vqvae.config_checks import require
from stage1_vqvae.quantizers.config import (
    QUANTIZER_CONFIGS,
    SINGLE_QUANTIZER_CONFIGS,
    EMAQuantizerConfig,
    ProductConfig,
    QuantizerConfig,
    ResidualConfig,
)


def recommended_quantizer(kind: str, codebook_size: int) -> QuantizerConfig:
    """Returns the settings recommended for a kind with `codebook_size` codes a position in all.

    Residual and product quantizers share the log2(codebook_size) bits equally among as few grids as
    have at most 64 codes each.
    """
    if kind not in QUANTIZER_CONFIGS:
        raise ValueError(f"kind must be one of {', '.join(QUANTIZER_CONFIGS)}, got {kind}")
    require(codebook_size >= 2, "codebook_size", "at least 2", codebook_size)
    if kind not in ("residual", "product"):
        make: Callable[..., QuantizerConfig] = SINGLE_QUANTIZER_CONFIGS[kind]
        return make(codebook_size=codebook_size)
    grids, size = _equal_grids(kind, codebook_size)
    if kind == "residual":
        return ResidualConfig(
            num_quantizers=grids, base=EMAQuantizerConfig(codebook_size=size, codebook_dim=8)
        )
    dim = max(2, 8 // grids)
    return ProductConfig(
        codebook_dim=dim * grids,
        groups=grids,
        base=EMAQuantizerConfig(codebook_size=size, codebook_dim=dim),
    )


def _equal_grids(kind: str, codebook_size: int) -> tuple[int, int]:
    """Returns the fewest grids of at most 64 codes each with `codebook_size` combinations."""
    for grids in range(2, max(3, codebook_size.bit_length())):
        size = round(codebook_size ** (1 / grids))
        if 2 <= size <= 64 and size**grids == codebook_size:
            return grids, size
    raise ValueError(
        f"codebook_size must be a square, cube or higher power for kind {kind}, which shares it "
        f"equally among its grids, got {codebook_size}: take 64, 256, 512 or 1024, say"
    )
