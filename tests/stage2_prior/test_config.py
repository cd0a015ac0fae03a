"""Configs and grid shapes: their ranges, and imports without torch."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import stage2_prior
from stage2_prior import GridSpec, PixelCNNConfig, SamplingSettings, TransformerConfig
from stage2_prior.grids import check_grids, raster_positions, to_grids, to_sequence

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (TransformerConfig, {"num_layers": 0}, "num_layers must be at least 1, got 0"),
        (TransformerConfig, {"num_heads": 0}, "num_heads must be at least 1, got 0"),
        (
            TransformerConfig,
            {"width": 100, "num_heads": 3},
            "width must be a multiple of num_heads (3), got 100",
        ),
        (TransformerConfig, {"width": 0}, "width must be at least 1, got 0"),
        (TransformerConfig, {"width": 65_538}, "width must be at most 65,536, got 65538"),
        (TransformerConfig, {"num_layers": 257}, "num_layers must be at most 256, got 257"),
        (TransformerConfig, {"num_heads": 10**40}, "num_heads must be at most 65,536, got 1000"),
        (TransformerConfig, {"dropout": 1.0}, "dropout must be in [0, 1), got 1.0"),
        (TransformerConfig, {"dropout": -0.1}, "dropout must be in [0, 1), got -0.1"),
        (TransformerConfig, {"dropout": NAN}, "dropout must be in [0, 1), got nan"),
        (TransformerConfig, {"label_dropout": 1.0}, "label_dropout must be in [0, 1), got 1.0"),
        (
            TransformerConfig,
            {"random_order_until": 1.1},
            "random_order_until must be in [0, 1], go",
        ),
        (TransformerConfig, {"random_order_share": -0.1}, "random_order_share must be in [0, 1]"),
        (PixelCNNConfig, {"num_layers": 0}, "num_layers must be at least 1, got 0"),
        (PixelCNNConfig, {"width": 0}, "width must be at least 1, got 0"),
        (PixelCNNConfig, {"kernel_size": 4}, "kernel_size must be odd, got 4"),
        (PixelCNNConfig, {"kernel_size": 1}, "kernel_size must be at least 3, got 1"),
        (PixelCNNConfig, {"kernel_size": 257}, "kernel_size must be at most 255, got 257"),
        (PixelCNNConfig, {"num_layers": 257}, "num_layers must be at most 256, got 257"),
        (PixelCNNConfig, {"dropout": 1.0}, "dropout must be in [0, 1), got 1.0"),
        (PixelCNNConfig, {"label_dropout": -1.0}, "label_dropout must be in [0, 1), got -1.0"),
        (SamplingSettings, {"temperature": -1.0}, "temperature must be at least 0, got -1.0"),
        (SamplingSettings, {"temperature": INF}, "temperature must be finite, got inf"),
        (SamplingSettings, {"temperature": NAN}, "temperature must be at least 0, got nan"),
        (
            SamplingSettings,
            {"first_temperature": 0.0},
            "first_temperature must be above 0 and finite, or None, got 0.0",
        ),
        (
            SamplingSettings,
            {"first_temperature": INF},
            "first_temperature must be above 0 and finite, or None, got inf",
        ),
        (
            SamplingSettings,
            {"first_temperature": 1.1, "temperature": 0.0},
            "first_temperature 1.1 needs a temperature above 0 to go to",
        ),
        (SamplingSettings, {"top_k": 0}, "top_k must be at least 1, got 0"),
        (SamplingSettings, {"top_p": 0.0}, "top_p must be in (0, 1], got 0.0"),
        (SamplingSettings, {"top_p": 1.1}, "top_p must be in (0, 1], got 1.1"),
        (SamplingSettings, {"guidance_scale": -1.0}, "guidance_scale must be at least 0, got -1"),
        (SamplingSettings, {"guidance_scale": INF}, "guidance_scale must be finite, got inf"),
        (
            SamplingSettings,
            {"guidance_scale": 1e7},
            "guidance_scale must be at most 1,000,000, got 10000000.0",
        ),
        (
            SamplingSettings,
            {"guidance_schedule": "up"},
            "must be one of constant, linear, cosine, got up",
        ),
        (
            SamplingSettings,
            {"guidance_schedule": "linear", "guidance_power": 0.0},
            "guidance_power must be above 0 and finite, got 0.0",
        ),
        (
            SamplingSettings,
            {"guidance_schedule": "cosine", "guidance_power": INF},
            "guidance_power must be above 0 and finite, got inf",
        ),
        (
            SamplingSettings,
            {"guidance_schedule": "linear"},
            "guidance_schedule linear needs a guidance_scale other than 1",
        ),
        (
            SamplingSettings,
            {"guidance_power": 2.0},
            "guidance_power 2.0 needs a guidance_schedule to shape",
        ),
        (
            SamplingSettings,
            {"first_guidance_scale": 0.9},
            "first_guidance_scale 0.9 needs a guidance_schedule to start",
        ),
        (
            SamplingSettings,
            {"guidance_scale": 2.0, "guidance_schedule": "linear", "first_guidance_scale": -0.1},
            "first_guidance_scale must be at least 0, got -0.1",
        ),
        (
            SamplingSettings,
            {"guidance_scale": 2.0, "guidance_schedule": "linear", "first_guidance_scale": 1e7},
            "first_guidance_scale must be at most 1,000,000, got 10000000.0",
        ),
        (SamplingSettings, {"num_steps": 0}, "num_steps must be at least 1 or None, got 0"),
        (
            SamplingSettings,
            {"step_order": "any"},
            "step_order must be random or confidence, got any",
        ),
        (
            SamplingSettings,
            {"precision": "half"},
            "precision must be float32 or bfloat16, got half",
        ),
    ],
    ids=str,
)
def test_config_refuses_values_out_of_range(cls, values, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        cls(**values)


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (TransformerConfig, {"num_layers": 1, "width": 1, "num_heads": 1, "dropout": 0.0}),
        (PixelCNNConfig, {"num_layers": 1, "width": 1, "kernel_size": 3, "label_dropout": 0.0}),
        (SamplingSettings, {"temperature": 0.0, "top_k": 1, "top_p": 1.0, "guidance_scale": 0.0}),
    ],
)
def test_config_accepts_the_ends_of_its_ranges(cls, values):
    config = cls(**values)
    assert {name: getattr(config, name) for name in values} == values


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TransformerConfig().width = 3


@pytest.mark.parametrize("sides", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (-1, 2, 3)])
def test_grid_refuses_sides_below_one(sides):
    with pytest.raises(
        ValueError, match=r"height, width and codebook_size must be at least 1, got GridSpec\("
    ):
        GridSpec(*sides)


def test_grid_refuses_too_many_codes():
    with pytest.raises(ValueError, match=r"codebook_size must be at most 16,777,216, got GridSpec"):
        GridSpec(1, 1, 2**24 + 1)


@pytest.mark.parametrize(
    ("grids", "found"),
    [
        ((GridSpec(512, 513, 2),), "1 with 262,656"),
        ((GridSpec(1, 1, 2),) * 257, "257 with 257"),
    ],
)
def test_too_many_grids_or_codes_are_refused(grids, found):
    with pytest.raises(ValueError, match=f"grids must be at most 256 with 262,144 .* got {found}"):
        check_grids(grids)


def test_sequence_holds_grid_after_grid_row_by_row():
    grids = (GridSpec(1, 2, 9), GridSpec(2, 3, 9))
    codes = (torch.tensor([[[1, 2]]]), torch.tensor([[[3, 4, 5], [6, 7, 8]]]))
    sequence = to_sequence(codes)
    assert sequence.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert [grid.tolist() for grid in to_grids(sequence, grids)] == [g.tolist() for g in codes]


def test_raster_positions_name_grid_row_and_column():
    grids = (GridSpec(1, 2, 9), GridSpec(2, 2, 9))
    expected = [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]]
    assert raster_positions(grids).tolist() == expected


def test_importing_the_config_does_not_import_torch():
    code = "import sys, stage2_prior.config; sys.exit('torch' in sys.modules)"
    root = Path(stage2_prior.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize("name", stage2_prior.__all__)
def test_package_exports_what_it_names(name):
    assert getattr(stage2_prior, name).__name__ == name


def test_package_refuses_other_names():
    with pytest.raises(AttributeError, match="module 'stage2_prior' has no attribute 'Prior'"):
        _ = stage2_prior.Prior
