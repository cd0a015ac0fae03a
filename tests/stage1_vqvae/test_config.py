import subprocess
import sys
from dataclasses import FrozenInstanceError

import pytest

import stage1_vqvae
from stage1_vqvae.config import VQVAEConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"downsampling": 1}, "downsampling must be 2, 4, 8 or 16, got 1"),
        ({"downsampling": 32}, "downsampling must be 2, 4, 8 or 16, got 32"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"width": 65_537}, "width must be at most 65,536, got 65537"),
        ({"fine_width": 0}, "fine_width must be at least 1, got 0"),
        ({"fine_width": 10**40}, "fine_width must be at most 65,536, got 1000"),
        ({"num_layers": -1}, "num_layers must be at least 0, got -1"),
        ({"num_layers": 257}, "num_layers must be at most 256, got 257"),
        ({"fine_layers": -1}, "fine_layers must be at least 0, got -1"),
        ({"fine_layers": 2**31}, "fine_layers must be at most 256, got 2147483648"),
        ({"likelihood": "l2"}, "likelihood must be mse, l1 or bernoulli, got l2"),
    ],
)
def test_vqvae_config_out_of_range_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        VQVAEConfig(**values)


def test_networks_without_residual_blocks_are_allowed():
    assert VQVAEConfig(num_layers=0, fine_layers=0).num_layers == 0


def test_config_cannot_be_changed():
    config = VQVAEConfig()
    with pytest.raises(FrozenInstanceError):
        config.width = 5


@pytest.mark.parametrize(
    "statement", ["import stage1_vqvae.config", "from stage1_vqvae import VQVAEConfig"]
)
def test_importing_the_config_does_not_import_torch(statement):
    program = f"import sys; {statement}; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_package_exports_resolve_to_their_modules():
    assert [getattr(stage1_vqvae, name).__name__ for name in stage1_vqvae.__all__] == [
        *stage1_vqvae.__all__
    ]


def test_package_refuses_unknown_names():
    with pytest.raises(AttributeError, match="module 'stage1_vqvae' has no attribute 'VQGAN'"):
        stage1_vqvae.VQGAN  # noqa: B018
