"""Every recipe gives models that fit each other and its data."""

import json
from typing import get_args

import pytest
import torch
from tiny_runs import command

from pipelines.data.config import parse_source
from pipelines.files.names import duration
from pipelines.runs import stage_one
from pipelines.runs.choices import Speed
from pipelines.runs.config import RecipeName
from pipelines.runs.recipes import RECIPES
from stage1_vqvae.model import VQVAE
from stage2_prior.grids import GridSpec
from stage2_prior.pretrained import build_prior
from stage2_prior.spec import PriorSpec

IMAGE_SHAPES = {
    "fashion-mnist-mini": (1, 28, 28),
    "fashion-mnist": (1, 28, 28),
    "mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "folder-64": (3, 64, 64),
    "folder-128": (3, 128, 128),
    "folder-256": (3, 256, 256),
    "smoke": (1, 28, 28),
}


def test_every_name_an_option_offers_is_a_recipe_of_its_data():
    assert set(RECIPES) == set(get_args(RecipeName))
    assert {name: run.recipe for name, run in RECIPES.items()} == {name: name for name in RECIPES}
    for name in ("fashion-mnist-mini", "fashion-mnist", "mnist", "cifar10"):
        assert parse_source(RECIPES[name].data.source) == (name, None)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_builds_a_prior_over_the_grids_of_its_vqvae(name):
    config = RECIPES[name]
    channels, height, width = IMAGE_SHAPES[name]
    with torch.device("meta"):
        vqvae = VQVAE(config.vqvae, (channels, height, width))
        factor, size = config.vqvae.downsampling, config.vqvae.quantizer.codebook_size
        assert vqvae.grid_shapes == ((-(-height // factor), -(-width // factor)),)
        grids = (GridSpec(*vqvae.grid_shapes[0], size),)
        sequence = torch.zeros((2, grids[0].num_codes), dtype=torch.int64)
        prior = build_prior(config.prior, PriorSpec(grids=grids, num_classes=10))
        logits = prior(sequence, torch.zeros(2, dtype=torch.int64))
    assert [tuple(part.shape) for part in logits] == [(2, grids[0].num_codes, size)]


@pytest.mark.parametrize("name", ["fashion-mnist-mini", "smoke"])
def test_dry_run_says_the_plan_and_writes_nothing(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    speed = Speed(vqvae=100.0, prior=200.0)
    monkeypatch.setattr(stage_one, "measure_speed", lambda *_: speed)
    command("train_all", "--recipe", name, "--dry-run")
    config = RECIPES[name]
    # 10,000 images, of which 5 % are validated on, and 2,000 to test on.
    train, validation, test = (min(n, config.data.limit or n) for n in (9500, 500, 2000))
    plan = capsys.readouterr().out.splitlines()
    assert plan[0] == (
        f"data:  fashion-mnist-mini, 28x28x1, 10 classes: train {train:,}, "
        f"validation {validation:,}, test {test:,}"
    )
    quantizer = config.vqvae.quantizer
    assert plan[1].strip().startswith("training images per class: T-shirt/top ")
    assert plan[2].startswith(
        f"vqvae: {quantizer.kind} quantizer, 7x7 codes of {quantizer.codebook_size}, "
    )
    assert plan[3].startswith(f"prior: {config.prior.kind}, ")
    for line, training, rate in (
        (plan[4], config.vqvae_training, 100),
        (plan[5], config.prior_training, 200),
    ):
        seconds = training.total_steps(train) * training.batch_size / rate
        assert " GFLOP for an image, " in line
        assert line.endswith(f" GiB of memory; {duration(seconds)} at {rate} images/s")
    assert json.loads("\n".join(plan[6:])) == config.to_dict()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precision_is_that_of_both_stages(precision, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command("train_all", "--recipe", "smoke", "--precision", precision, "--dry-run")
    printed = capsys.readouterr().out
    settings = json.loads(printed[printed.index("{") :])
    trainings = (settings["vqvae_training"], settings["prior_training"])
    assert [training["precision"] for training in trainings] == [precision, precision]
