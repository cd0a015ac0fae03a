"""Configs: their ranges, and imports without torch."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import stage2_prior
from stage2_prior import PixelCNNConfig, TransformerConfig

NAN = float("nan")


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (TransformerConfig, {"num_layers": 0}, "num_layers .*got 0"),
        (TransformerConfig, {"num_layers": 257}, "num_layers .*256, got 257"),
        (TransformerConfig, {"num_heads": 0}, "num_heads .*got 0"),
        (TransformerConfig, {"num_heads": 10**40}, "num_heads .*65,536, got 1000"),
        (TransformerConfig, {"width": 100, "num_heads": 3}, r"width .*num_heads \(3\), got 100"),
        (TransformerConfig, {"width": 65_538}, "width .*65,536, got 65538"),
        (TransformerConfig, {"dropout": 1.0}, "dropout .*got 1.0"),
        (TransformerConfig, {"dropout": -0.1}, "dropout .*got -0.1"),
        (TransformerConfig, {"label_dropout": 1.0}, "label_dropout .*got 1.0"),
        (TransformerConfig, {"random_order_until": 1.1}, "random_order_until .*got 1.1"),
        (TransformerConfig, {"random_order_share": -0.1}, "random_order_share .*got -0.1"),
        (PixelCNNConfig, {"num_layers": 0}, "num_layers .*got 0"),
        (PixelCNNConfig, {"width": 0}, "width .*got 0"),
        (PixelCNNConfig, {"kernel_size": 4}, "kernel_size .*odd, got 4"),
        (PixelCNNConfig, {"kernel_size": 1}, "kernel_size .*got 1"),
        (PixelCNNConfig, {"kernel_size": 257}, "kernel_size .*255, got 257"),
        (PixelCNNConfig, {"attention_every": -1}, "attention_every .*got -1"),
        (PixelCNNConfig, {"attention_every": 11}, r"attention_every .*\(10\), got 11"),
        (PixelCNNConfig, {"num_heads": 0}, "num_heads .*got 0"),
        (PixelCNNConfig, {"attention_every": 2, "num_heads": 5}, r"width .*\(5\), got 96"),
        (PixelCNNConfig, {"dropout": NAN}, "dropout .*got nan"),
        (PixelCNNConfig, {"label_dropout": -1.0}, "label_dropout .*got -1.0"),
    ],
    ids=str,
)
def test_config_refuses_values_out_of_range(cls, values, message):
    with pytest.raises(ValueError, match=message):
        cls(**values)


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (TransformerConfig, {"num_layers": 1, "width": 1, "num_heads": 1, "dropout": 0.0}),
        (PixelCNNConfig, {"num_layers": 1, "width": 1, "kernel_size": 3, "label_dropout": 0.0}),
        # Heads need not divide the width without attention.
        (PixelCNNConfig, {"width": 7, "num_heads": 4, "attention_every": 0}),
    ],
)
def test_config_accepts_the_ends_of_its_ranges(cls, values):
    config = cls(**values)
    assert {name: getattr(config, name) for name in values} == values


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TransformerConfig().width = 3


def test_importing_the_config_does_not_import_torch():
    modules = "stage2_prior.config, stage2_prior.sampling.settings"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    root = Path(stage2_prior.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_package_exports_what_it_names():
    names = [getattr(stage2_prior, name).__name__ for name in stage2_prior.__all__]
    assert names == stage2_prior.__all__


def test_package_refuses_other_names():
    with pytest.raises(AttributeError, match=r"stage2_prior.*'Prior'"):
        _ = stage2_prior.Prior
