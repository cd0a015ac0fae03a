"""A run's settings as JSON and back, and what differs between two of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.config import RunConfig, differences
from pipelines.data.config import DataConfig
from pipelines.recipes import RECIPES
from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.quantizer_config import EMAQuantizerConfig, GradientQuantizerConfig
from stage2_prior.config import PixelCNNConfig, TransformerConfig


def through_json(config):
    return json.loads(json.dumps(config.to_dict()))


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_survives_json(name):
    config = RECIPES[name]()
    assert RunConfig.from_dict(through_json(config)) == config


@pytest.mark.parametrize("prior", [TransformerConfig(dropout=0.2), PixelCNNConfig(kernel_size=7)])
@pytest.mark.parametrize(
    "quantizer", [EMAQuantizerConfig(cosine=True), GradientQuantizerConfig(codebook_weight=2.0)]
)
def test_each_kind_survives_json(prior, quantizer):
    config = RunConfig(prior=prior, vqvae=VQVAEConfig(quantizer=quantizer))
    assert RunConfig.from_dict(through_json(config)) == config


def test_paths_and_tuples_survive_json():
    data = DataConfig(source="folder:photos", root=Path("some/where"), image_size=(48, 64))
    config = RunConfig(data=data, seed=2**63 - 1, device="cuda:1")
    assert RunConfig.from_dict(through_json(config)) == config


def test_to_dict_holds_paths_as_text_and_tuples_as_lists():
    values = RunConfig(data=DataConfig(image_size=(48, 64))).to_dict()
    assert values["data"]["root"] == "data"
    assert values["data"]["image_size"] == [48, 64]
    assert values["vqvae_training"]["betas"] == [0.9, 0.99]


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match=rf"seed must be in \[0, 2\^63\), got {seed}"):
        RunConfig(seed=seed)


def without(values, *path):
    *parents, last = path
    for name in parents:
        values = values[name]
    del values[last]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (["seed"], r"a saved RunConfig must have exactly .* \['seed'\] are missing or unknown"),
        (["data", "limit"], r"a saved DataConfig must .* \['limit'\] are missing or unknown"),
        (["vqvae", "width"], "width: the field is missing or unknown"),
        (["vqvae_training", "betas"], r"a saved TrainingConfig must .* \['betas'\] are missing"),
        (["prior", "width"], "width: the field is missing or unknown"),
        (["prior", "kind"], "kind: the field is missing or unknown"),
    ],
)
def test_missing_field_is_refused_by_name(path, message):
    values = through_json(RunConfig())
    without(values, *path)
    with pytest.raises(ValueError, match=message):
        RunConfig.from_dict(values)


def test_settings_that_older_versions_did_not_write_are_what_they_did():
    values = through_json(RunConfig())
    del values["augmentation"]
    for part in ("vqvae_training", "prior_training"):
        del values[part]["optimizer"]
    config = RunConfig.from_dict(values)
    augmentation = config.augmentation
    assert (augmentation.flip, augmentation.shift) == (False, 0)
    assert {config.vqvae_training.optimizer, config.prior_training.optimizer} == {"adamw"}


@pytest.mark.parametrize("part", ["data", "vqvae_training", "prior_training"])
def test_unknown_field_is_refused_by_name(part):
    values = through_json(RunConfig())
    values[part]["colour"] = "red"
    with pytest.raises(ValueError, match=r"\['colour'\] are missing or unknown: use the version"):
        RunConfig.from_dict(values)


def test_part_that_is_no_object_is_refused():
    values = through_json(RunConfig()) | {"data": 3}
    with pytest.raises(ValueError, match="a saved DataConfig must be an object, got 3"):
        RunConfig.from_dict(values)


def test_saved_value_out_of_range_is_refused():
    values = through_json(RunConfig())
    values["prior_training"]["epochs"] = -2
    with pytest.raises(ValueError, match="epochs must be positive and finite, got -2"):
        RunConfig.from_dict(values)


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
