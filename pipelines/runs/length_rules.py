"""The rules by which images and machine choose how long to train. Imports no torch.

They follow `rules`, and need the speed of the networks that those have chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from pipelines.files.names import duration
from pipelines.runs.choices import Choice, Facts, Rule
from pipelines.runs.config import RunConfig
from pipelines.training.config import TrainingConfig

DEFAULT_HOURS = {"cuda": 1 / 6}  # by type of device, elsewhere an hour
# Images that a training sees: factor * number ** power. So 50 images are seen 600 times by stage
# one, 500 images 190 times, 5,000 images 60 times, and 50,000 images 19 times.
_VQVAE_IMAGES = (4_200, 0.5)
_PRIOR_IMAGES = (2_000, 0.55)
_TRAINING_SHARE = 0.9  # of the hours; the rest is for validation, codes, samples and the report
_LEAST_SHARE = 0.1  # of that, for a stage whose epochs are chosen beside those that the user gave
_VALIDATION_SHARE = 0.05  # of a training's work, within the numbers of validations below
_VALIDATIONS = (4, 40)
_PATIENCE = 0.25  # share of all validations
_LEAST_PATIENCE = 3  # validations


def _epochs(facts: Facts, config: RunConfig) -> Iterator[Choice]:
    if facts.speed is None:
        return
    budget = 3600 * facts.hours * _TRAINING_SHARE
    speeds = {"vqvae": facts.speed.vqvae, "prior": facts.speed.prior}
    wanted = {
        stage: factor * facts.num_train**power
        for stage, (factor, power) in {"vqvae": _VQVAE_IMAGES, "prior": _PRIOR_IMAGES}.items()
    }
    trainings = {"vqvae": config.vqvae_training, "prior": config.prior_training}
    given = {stage for stage in speeds if f"--{stage}-training.epochs" in facts.given}
    needed = {
        stage: (trainings[stage].epochs * facts.num_train if stage in given else wanted[stage])
        / speeds[stage]
        for stage in speeds
    }
    for stage, other in (("vqvae", "prior"), ("prior", "vqvae")):
        # Half of the time each, and what the other does not need; given epochs take what they take.
        least = budget * (_LEAST_SHARE if other in given else 1 / 2)
        seconds = min(needed[stage], max(least, budget - needed[other]))
        images = seconds * speeds[stage]
        enough, epochs = (_rounded(n / facts.num_train) for n in (wanted[stage], images))
        reason = f"{images:,.0f} images in {duration(seconds)}"
        if epochs < enough:
            reason += f", within --hours {facts.hours:.2g}; {enough:g} epochs would be better"
        yield Choice(option=f"--{stage}-training.epochs", value=epochs, reason=reason)


def _validations(facts: Facts, config: RunConfig) -> Iterator[Choice]:
    height, width = config.vqvae_augmentation.image_size(facts.image_shape)
    whole_images = math.prod(facts.image_shape[1:]) / (height * width)
    for stage, training, work in (
        ("vqvae", config.vqvae_training, whole_images),
        ("prior", config.prior_training, 1),
    ):
        count = _num_validations(facts, training, 2 * work)  # on as many training images, too
        yield Choice(
            option=f"--{stage}-training.validate-every",
            value=float(f"{training.epochs / count:.2g}"),
            reason=f"{count} times in all, on {facts.num_validation:,} images",
        )
        patience = max(_LEAST_PATIENCE, math.ceil(count * _PATIENCE))
        yield Choice(
            option=f"--{stage}-training.patience",
            value=patience,
            reason=f"ends after {patience / count:.0%} of the training without a better validation",
        )


LENGTH_RULES: tuple[Rule, ...] = (_epochs, _validations)
"""The rules in their order."""


def _num_validations(facts: Facts, training: TrainingConfig, work: float) -> int:
    """Counts validations of which each does `work` forward passes of training for an image."""
    fewest, most = _VALIDATIONS
    passes = 3 * training.epochs * facts.num_train  # a backward pass counts two
    affordable = _VALIDATION_SHARE * passes / (work * facts.num_validation)
    return int(min(max(affordable, fewest), most))


def _rounded(epochs: float) -> float:
    """Rounds to whole epochs, below 10 to two digits."""
    return float(round(epochs)) if epochs >= 10 else float(f"{epochs:.2g}")
