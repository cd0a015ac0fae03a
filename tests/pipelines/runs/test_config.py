"""A run's settings as JSON and back, and what differs between two of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.data.config import DataConfig
from pipelines.files.records import convert
from pipelines.runs.config import RunConfig, differences
from pipelines.runs.recipes import RECIPES
from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.quantizers.config import EMAQuantizerConfig, GradientQuantizerConfig
from stage2_prior.config import PixelCNNConfig, TransformerConfig


def through_json(config):
    return json.loads(json.dumps(config.to_dict()))


def test_recipes_survive_json():
    read = {name: convert(through_json(run), RunConfig) for name, run in RECIPES.items()}
    assert read == RECIPES


@pytest.mark.parametrize(
    ("prior", "quantizer"),
    [
        (TransformerConfig(dropout=0.2), EMAQuantizerConfig(cosine=True)),
        (PixelCNNConfig(kernel_size=7), GradientQuantizerConfig(codebook_weight=2.0)),
    ],
)
def test_each_kind_survives_json(prior, quantizer):
    config = RunConfig(prior=prior, vqvae=VQVAEConfig(quantizer=quantizer))
    assert convert(through_json(config), RunConfig) == config


def test_paths_and_tuples_survive_json():
    data = DataConfig(source="folder:photos", root=Path("some/where"), image_size=(48, 64))
    config = RunConfig(data=data, seed=2**63 - 1, device="cuda:1")
    assert convert(through_json(config), RunConfig) == config


def test_to_dict_holds_paths_as_text_and_tuples_as_lists():
    values = RunConfig(data=DataConfig(image_size=(48, 64))).to_dict()
    assert values["data"]["root"] == "data"
    assert values["data"]["image_size"] == [48, 64]
    assert values["vqvae_training"]["betas"] == [0.9, 0.99]


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match=rf"seed must be in \[0, 2\^63\), got {seed}"):
        RunConfig(seed=seed)


def edited(path, value):
    """The default settings with another value at `path`; None leaves the field out."""
    values = through_json(RunConfig())
    *parents, last = path.split(".")
    place = values
    for name in parents:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return values


@pytest.mark.parametrize(
    "path",
    ["seed", "data.limit", "vqvae_training.betas", "prior.kind", "prior_augmentation"],
)
def test_missing_field_is_refused_by_name(path):
    with pytest.raises(ValueError, match=path.replace(".kind", "").replace(".", r"\.")):
        convert(edited(path, None), RunConfig)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("vqvae_training.betas", {}), ("vqvae.fine_width", float("inf"))),
        *(("data", 3), ("seed", True), ("device", 0), ("prior.num_layers", 2.0)),
        *(("data.colour", "red"), ("recipe", "mnist2")),
    ],
)
def test_value_that_does_not_fit_is_refused_by_name(path, value):
    with pytest.raises(ValueError, match=path.replace(".", r"\.")):
        convert(edited(path, value), RunConfig)


def test_saved_value_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"prior_training: epochs must be positive.*got -2"):
        convert(edited("prior_training.epochs", -2), RunConfig)


def test_differences_name_the_options_as_they_are_given():
    old = RunConfig()
    new = replace(
        old,
        seed=3,
        vqvae=replace(old.vqvae, fine_width=7, quantizer=EMAQuantizerConfig(codebook_size=9)),
        vqvae_training=replace(old.vqvae_training, learning_rate=0.5),
    )
    assert differences(old.to_dict(), new.to_dict()) == [
        "--seed was 0, is now 3",
        "--vqvae.fine-width was 64, is now 7",
        "--vqvae.quantizer.codebook-size was 512, is now 9",
        "--vqvae-training.learning-rate was 0.002, is now 0.5",
    ]


def test_differences_name_what_only_one_side_has():
    old, new = {"prior": {"num_heads": 2}}, {"prior": {"kernel_size": 5}}
    assert differences(old, new) == [
        "--prior.kernel-size was None, is now 5",
        "--prior.num-heads was 2, is now None",
    ]


def test_equal_settings_have_no_differences():
    assert differences(RunConfig().to_dict(), through_json(RunConfig())) == []
