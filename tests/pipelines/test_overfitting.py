"""A training that overfits is reported, and stopped."""

from dataclasses import replace

import pytest
import torch
from tiny_runs import one_thread

from pipelines.runs.config import RunConfig
from pipelines.runs.overfitting import Fit, remedy, verdict
from pipelines.runs.prior_augmentation import PriorAugmentationConfig
from pipelines.runs.tasks import PriorTask
from pipelines.runs.vqvae_augmentation import VQVAEAugmentationConfig
from pipelines.training.config import TrainingConfig
from pipelines.training.metrics_log import MetricsLog, read_metrics
from pipelines.training.trainer import Trainer
from stage1_vqvae.code_dump import CodeDump, SplitCodes
from stage2_prior.config import TransformerConfig
from stage2_prior.grids import GridSpec
from stage2_prior.pretrained import build_prior
from stage2_prior.spec import PriorSpec

CPU = torch.device("cpu")


def random_codes(seed):
    """16 images of 2x3 codes that have nothing in common: what is learned does not generalise."""
    generator = torch.Generator().manual_seed(seed)
    return SplitCodes((torch.randint(8, (16, 2, 3), generator=generator).int(),), None)


class Stopped:
    """A training of at most 200 epochs with a patience of 4 validations."""

    def __init__(self, directory):
        config = TransformerConfig(num_layers=1, width=16, num_heads=2, dropout=0.0)
        with one_thread():
            torch.manual_seed(0)
            self.prior = build_prior(config, PriorSpec(grids=(GridSpec(2, 3, 8),)))
            splits = {name: random_codes(i) for i, name in enumerate(("train", "validation"))}
            self.task = PriorTask(self.prior, CodeDump(splits, (8,), None, "hash"))
            trainer = Trainer(
                self.task,
                TrainingConfig(
                    epochs=200, batch_size=8, learning_rate=1e-2, precision="fp32", patience=4
                ),
                checkpoint_dir=directory / "checkpoints",
                metrics=MetricsLog(directory / "metrics.jsonl"),
                device=CPU,
                seed=0,
            )
            self.result = trainer.fit(resume=False)
        rows = read_metrics(directory / "metrics.jsonl")
        self.rows = [row for row in rows if row.kind == "validation"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    return Stopped(tmp_path_factory.mktemp("run"))


def test_patience_stops_a_prior_whose_validation_bits_rise(stopped):
    bits = [row.values["bits_per_code"] for row in stopped.rows]
    best = bits.index(min(bits))
    assert stopped.result.stopped_early
    assert stopped.result.step < 400
    assert len(bits) == best + 1 + 4
    assert stopped.result.best_step == stopped.rows[best].step


def test_weights_of_the_lowest_validation_bits_are_kept(stopped):
    bits = [row.values["bits_per_code"] for row in stopped.rows]
    assert stopped.task.validate(CPU)["bits_per_code"] == pytest.approx(min(bits), rel=1e-6)


def test_bits_of_training_images_fall_away_from_those_of_validation(stopped):
    first, last = stopped.rows[0].values, stopped.rows[-1].values
    assert last["train_bits_per_code"] < first["train_bits_per_code"]
    assert last["bits_per_code"] > last["train_bits_per_code"]
    assert stopped.result.last_metrics == last


def test_end_says_that_it_overfits_and_since_when(stopped):
    result = stopped.result
    fit = Fit.of("prior", result.best_step, result.best_metrics, result.step, result.last_metrics)
    assert fit.overfits
    said = verdict(fit, RunConfig())
    best, last = result.best_metrics, result.last_metrics
    assert f"{best['bits_per_code']:.4g} bits per code on the validation split" in said
    assert f"{best['train_bits_per_code']:.4g} on training images" in said
    assert f"step {result.best_step} of {result.step}" in said
    assert f"{last['bits_per_code']:.4g} against {last['train_bits_per_code']:.4g}" in said


def fit_of(**changed):
    metrics = {"step": 1250, "best_step": 1240, "validation": 5.0, "train": 4.9}
    last = {"last_validation": 5.1, "last_train": 4.8}
    return Fit(phase="prior", **metrics | last | changed)


@pytest.mark.parametrize(
    ("changed", "overfits"),
    [
        ({}, False),
        # The best weights at four fifths of the steps, and just after.
        ({"best_step": 1000}, True),
        ({"best_step": 1001}, False),
        # One percent more on the validation split is a plateau.
        ({"best_step": 900, "last_validation": 5.05}, False),
        ({"best_step": 900, "last_validation": 5.051}, True),
        # What rises on training images, too, diverges.
        ({"best_step": 900, "last_train": 4.9}, False),
        # A gap of 15 % of the validation bits, and just above.
        ({"train": 4.25}, False),
        ({"train": 4.24}, True),
    ],
)
def test_rise_after_early_best_weights_or_a_gap_is_overfitting(changed, overfits):
    fit = fit_of(**changed)
    assert fit.overfits == overfits
    assert verdict(fit, RunConfig()).startswith("overfits" if overfits else "no overfitting")


def test_verdict_names_the_metric_and_the_options_of_its_stage():
    best, last = ({"loss": loss, "train_loss": 0.05} for loss in (0.1, 0.2))
    said = verdict(Fit.of("vqvae", 10, best, 20, last), RunConfig())
    assert "loss of 0.1 on the validation split against 0.05" in said
    assert "--vqvae-augmentation.crop" in said
    assert "prior" not in said


def test_remedy_of_stage_one_names_only_options_that_are_not_in_use():
    plain, crop = RunConfig(), VQVAEAugmentationConfig(crop=8)
    assert "--vqvae-augmentation.flip, --vqvae-augmentation.crop" in remedy("vqvae", plain)
    cropped = remedy("vqvae", replace(plain, vqvae_augmentation=crop))
    assert "augmentation.crop" not in cropped
    flipped = remedy("vqvae", replace(plain, vqvae_augmentation=replace(crop, flip=True)))
    assert "augmentation" not in flipped
    assert "--vqvae.width" in flipped


def test_remedy_names_only_options_that_are_not_in_use():
    plain = RunConfig()
    assert "--prior-augmentation.flip" in remedy("prior", plain)
    assert "--prior-augmentation.shift 2" in remedy("prior", plain)
    assert "--prior.dropout 0.2" in remedy("prior", plain)
    used = replace(
        plain,
        prior_augmentation=PriorAugmentationConfig(flip=True, shift=2),
        prior=TransformerConfig(dropout=0.3),
    )
    assert "augmentation" not in remedy("prior", used)
    assert "dropout" not in remedy("prior", used)
    assert "--prior.width" in remedy("prior", used)


def test_missing_metrics_give_no_verdict():
    found = {"bits_per_code": 1.0, "train_bits_per_code": 1.0}
    assert Fit.of("prior", 1, found, 2, found) is not None
    for missing in ({"bits_per_code": 1.0}, found | {"train_bits_per_code": None}):
        assert Fit.of("prior", 1, found, 2, missing) is None
