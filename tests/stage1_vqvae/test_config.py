import subprocess
import sys
from dataclasses import FrozenInstanceError

import pytest

import stage1_vqvae
from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.quantizer_config import EMAQuantizerConfig, GradientQuantizerConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"downsampling": 1}, "downsampling must be 2, 4, 8 or 16, got 1"),
        ({"downsampling": 32}, "downsampling must be 2, 4, 8 or 16, got 32"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"fine_width": 0}, "fine_width must be at least 1, got 0"),
        ({"num_layers": -1}, "num_layers must be at least 0, got -1"),
        ({"fine_layers": -1}, "fine_layers must be at least 0, got -1"),
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
    "quantizer",
    [
        EMAQuantizerConfig(codebook_size=33, cosine=True),
        GradientQuantizerConfig(codebook_dim=3, codebook_weight=0.5),
    ],
)
def test_from_dict_inverts_to_dict(quantizer):
    config = VQVAEConfig(downsampling=8, width=5, likelihood="l1", quantizer=quantizer)
    assert VQVAEConfig.from_dict(config.to_dict()) == config


def test_to_dict_names_every_choice():
    quantizer = GradientQuantizerConfig(commitment_weight=0.5)
    values = VQVAEConfig(likelihood="l1", quantizer=quantizer).to_dict()
    assert values["likelihood"] == "l1"
    assert values["quantizer"]["kind"] == "gradient"
    assert values["quantizer"]["commitment_weight"] == 0.5


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda v: v.pop("width"), r"VQVAEConfig must .* \['width'\] are missing or unknown"),
        (lambda v: v.update(depth=1), r"VQVAEConfig must .* \['depth'\] are missing or unknown"),
        (lambda v: v.pop("quantizer"), "kind must be one of ema, gradient, .* got None"),
        (lambda v: v.update(quantizer=[]), "kind must be one of ema, gradient, .* got None"),
        (lambda v: v["quantizer"].update(kind="fsq"), "one of ema, gradient, .* got 'fsq'"),
        (lambda v: v["quantizer"].pop("decay"), r"EMAQuantizerConfig must .* \['decay'\]"),
        (
            lambda v: v["quantizer"].update(codebook_weight=1.0),
            r"\['codebook_weight'\] are missing",
        ),
        (lambda v: v.update(downsampling=3), "downsampling must be 2, 4, 8 or 16, got 3"),
    ],
)
def test_from_dict_of_other_fields_is_refused(edit, message):
    values = VQVAEConfig().to_dict()
    edit(values)
    with pytest.raises(ValueError, match=message):
        VQVAEConfig.from_dict(values)


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
