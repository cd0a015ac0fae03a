"""Recommended quantizers: as many codes as were asked for, in grids of at most 64."""

import math

import pytest

from pipelines.sweeps.quantizers import recommended_quantizer
from stage1_vqvae.quantizers.config import QUANTIZER_CONFIGS, SINGLE_QUANTIZER_CONFIGS

KINDS = tuple(QUANTIZER_CONFIGS)


def bits_of(config):
    """log2 of the number of codes a position over all grids."""
    grids = getattr(config, "num_quantizers", getattr(config, "groups", 1))
    return grids * math.log2(getattr(config, "base", config).codebook_size)


# All sizes of the kinds that share them among grids, and one of the others.
@pytest.mark.parametrize(
    ("kind", "size"),
    [
        *((kind, 1024) for kind in KINDS),
        *((kind, size) for kind in ("residual", "product") for size in (4, 512, 2**18)),
        *(("finite_scalar", size) for size in (4, 2**18)),
    ],
)
def test_recommended_settings_have_exactly_the_codes_that_were_asked_for(kind, size):
    config = recommended_quantizer(kind, size)
    assert config.kind == kind
    assert bits_of(config) == pytest.approx(math.log2(size), rel=1e-12)


def test_recommended_settings_of_one_grid_are_the_defaults():
    for size in (512, 64):
        found = {kind: recommended_quantizer(kind, size) for kind in SINGLE_QUANTIZER_CONFIGS}
        assert found == {
            kind: make(codebook_size=size) for kind, make in SINGLE_QUANTIZER_CONFIGS.items()
        }
    assert recommended_quantizer("ema", 512) == SINGLE_QUANTIZER_CONFIGS["ema"]()


@pytest.mark.parametrize(
    ("size", "grids", "codes"),
    # 36 = 6^2 and 1000 = 10^3 are no powers of two; 10000 = 100^2 and 16384 = 128^2 are too large.
    [
        (4, 2, 2),
        (36, 2, 6),
        (512, 3, 8),
        (1000, 3, 10),
        (1024, 2, 32),
        (8192, 13, 2),
        (10_000, 4, 10),
        (16_384, 7, 4),
    ],
)
@pytest.mark.parametrize("kind", ["residual", "product"])
def test_recommended_grids_are_the_fewest_of_at_most_64_codes(kind, size, grids, codes):
    config = recommended_quantizer(kind, size)
    found = config.num_quantizers if kind == "residual" else config.groups
    assert (found, config.base.codebook_size) == (grids, codes)
    for fewer in range(2, grids):
        root = round(size ** (1 / fewer))
        assert root**fewer != size or root > 64


@pytest.mark.parametrize("size", [16, 512, 8192])
def test_recommended_groups_have_at_least_two_dimensions(size):
    config = recommended_quantizer("product", size)
    assert config.base.codebook_dim * config.groups == config.codebook_dim
    assert config.base.codebook_dim >= 2


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        ("vq", 512, "kind must be one of ema, gradient, simvq, finite_scalar, .*, got vq"),
        ("lookup_free", 100, "codebook_size must be a power of two for the lookup_free quantizer"),
        ("finite_scalar", 22, "codebook_size must be a product of levels from 2 to 8, got 22"),
        ("residual", 2, "codebook_size must be a square, cube or higher power for kind residual"),
        ("product", 100_000_007, "a square, cube .* for kind product, .* got 100000007: take 64"),
        ("residual", 72, "codebook_size must be a square, cube or higher power for kind residual"),
        ("ema", 1, "codebook_size must be at least 2, got 1"),
        ("product", -4, "codebook_size must be at least 2, got -4"),
    ],
)
def test_recommended_settings_of_impossible_sizes_are_refused(kind, size, message):
    with pytest.raises(ValueError, match=message):
        recommended_quantizer(kind, size)
