"""The rules by which images and machine choose settings. Imports no torch.

All numbers are in the tables at the top. A rule yields choices from the facts and from the settings
so far, which have the choices of the rules before it and all that the user gave.
"""

# ruff: noqa: ARG001 - all rules take the same arguments

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from pipelines.files.names import counted, duration
from pipelines.runs.choices import Choice, Facts, Rule
from pipelines.runs.config import RunConfig
from pipelines.training.config import TrainingConfig

CHOOSING_RECIPES = ("folder-64", "folder-128", "folder-256")
FEWEST_IMAGES = 50  # with fewer, a plan warns of what becomes of the samples
LARGEST_SIDE = 256  # pixels; a plan says of larger images that none were measured
DEFAULT_HOURS = {"cuda": 1 / 6}  # by type of device, elsewhere an hour
EPOCHS = ("--vqvae-training.epochs", "--prior-training.epochs")
GRID_OPTIONS = ("--vqvae.downsampling", "--vqvae.quantizer.codebook-size")
"""Options that decide the code grids."""


class _Size(NamedTuple):
    """Settings of images up to a number of pixels on their longer side."""

    side: float
    downsampling: int
    fine_width: int
    crop: int | None  # of the training images of stage one


_SIZES = (
    _Size(side=16, downsampling=2, fine_width=64, crop=None),
    _Size(side=32, downsampling=4, fine_width=64, crop=None),
    _Size(side=64, downsampling=8, fine_width=64, crop=None),
    _Size(side=128, downsampling=8, fine_width=48, crop=64),
    _Size(side=math.inf, downsampling=16, fine_width=32, crop=128),
)


class _Number(NamedTuple):
    """Settings of fewer than a number of training images."""

    images: float
    width: int  # of stage one
    num_layers: int  # of stage one
    prior_width: int
    prior_layers: int
    dropout: float  # of the prior
    augments: bool  # both stages


_NUMBERS = (
    _Number(200, 96, 2, prior_width=96, prior_layers=3, dropout=0.4, augments=True),
    _Number(1_000, 96, 2, prior_width=128, prior_layers=4, dropout=0.3, augments=True),
    _Number(10_000, 160, 3, prior_width=192, prior_layers=6, dropout=0.2, augments=True),
    _Number(math.inf, 160, 3, prior_width=256, prior_layers=8, dropout=0.1, augments=False),
)

_CODEBOOK_SIZES = (64, 1024)
_POSITIONS_PER_CODE = 64  # of the training split, so that each code has something to learn from
_HEAD_WIDTH = 32
_GPU_FACTOR = 2  # of stage one's widths and batches
_BATCHES_PER_EPOCH = 8  # at least; a small set takes smaller batches, and so more steps
_SMALLEST_BATCH = 8  # of a set that has as many images
_VQVAE_BATCH = 32  # twice the steps of 64: 1 dB more at equal images, see docs/results.md
_PRIOR_BATCH = 64
_PRIOR_BATCH_CODES = 1 << 14  # of all its images; the prior's memory grows with them

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


def data_warnings(num_images: int, image_shape: tuple[int, int, int]) -> Iterator[str]:
    """Yields sentences on what cannot become good, or is not known to.

    From the number of images in all splits, and their (C, H, W).
    """
    if num_images < FEWEST_IMAGES:
        yield (
            f"{num_images} images are too few to learn from: the samples will be copies of them, "
            f"or blurred shapes; {FEWEST_IMAGES} are a beginning, some hundreds are better"
        )
    _, height, width = image_shape
    if max(height, width) > LARGEST_SIDE:
        yield (
            f"{height}x{width} images are larger than any these choices were tried on: "
            f"--data.image-size {LARGEST_SIDE} {LARGEST_SIDE} is the largest size that was"
        )


def _downsampling(facts: Facts, config: RunConfig) -> Iterator[Choice]:
    _, height, width = facts.image_shape
    factor = _size(facts).downsampling
    grid = f"{-(-height // factor)}x{-(-width // factor)}"
    yield Choice(
        option="--vqvae.downsampling",
        value=factor,
        reason=f"{height}x{width} images give {grid} codes",
    )


def _codebook_size(facts: Facts, config: RunConfig) -> Iterator[Choice]:
    positions = facts.num_train * _codes_per_image(facts, config)
    fewest, most = _CODEBOOK_SIZES
    size = min(max(_power_of_two(positions // _POSITIONS_PER_CODE), fewest), most)
    yield Choice(
        option="--vqvae.quantizer.codebook-size",
        value=size,
        reason=f"{positions / size:,.0f} positions of the training images for each code",
    )


def _vqvae_networks(facts: Facts, config: RunConfig) -> Iterator[Choice]:
    _, height, width = facts.image_shape
    row, factor = _number(facts), _GPU_FACTOR if facts.device == "cuda" else 1
    images, size = f"{facts.num_train:,} training images", f"{height}x{width} pixels"
    on_gpu = ", on a GPU" if factor > 1 else ""
    yield Choice(option="--vqvae.width", value=factor * row.width, reason=images + on_gpu)
    fine_width = factor * _size(facts).fine_width
    yield Choice(option="--vqvae.fine-width", value=fine_width, reason=size + on_gpu)
    yield Choice(option="--vqvae.num-layers", value=row.num_layers, reason=images)


def _prior_network(facts: Facts, config: RunConfig) -> Iterator[Choice]:
    row = _number(facts)
    codes = facts.num_train * _codes_per_image(facts, config)
    reason = f"{facts.num_train:,} training images have {codes:,} codes to learn from"
    if config.prior.kind == "transformer":
        heads = config.prior.num_heads  # the width must be a multiple, also of the user's
        width = -(-row.prior_width // heads) * heads
        yield Choice(option="--prior.width", value=width, reason=reason)
        yield Choice(option="--prior.num-layers", value=row.prior_layers, reason=reason)
    reason = f"{facts.num_train:,} training images, against overfitting"
    yield Choice(option="--prior.dropout", value=row.dropout, reason=reason)


def _prior_heads(facts: Facts, config: RunConfig) -> Iterator[Choice]:
    if config.prior.kind == "transformer":
        width = config.prior.width
        most = max(width // _HEAD_WIDTH, 1)
        heads = next(heads for heads in range(most, 0, -1) if width % heads == 0)
        reason = f"{width // heads} of {width} channels each"
        yield Choice(option="--prior.num-heads", value=heads, reason=reason)


def _batch_sizes(facts: Facts, config: RunConfig) -> Iterator[Choice]:
    smallest = min(_SMALLEST_BATCH, _power_of_two(facts.num_train))
    fitting = max(smallest, _power_of_two(facts.num_train // _BATCHES_PER_EPOCH))
    vqvae_most = _VQVAE_BATCH * (_GPU_FACTOR if facts.device == "cuda" else 1)
    codes = _codes_per_image(facts, config)
    prior_most = min(_PRIOR_BATCH, _power_of_two(_PRIOR_BATCH_CODES // codes))
    for stage, training, most, why_most in (
        ("vqvae", config.vqvae_training, vqvae_most, "more steps gain more than larger batches"),
        ("prior", config.prior_training, prior_most, f"{counted(codes, 'code')} of an image"),
    ):
        unit = training.accumulation * facts.num_processes
        size = max(unit, min(fitting, most) // unit * unit)
        steps = counted(round(facts.num_train / size), "step")
        few = f"{steps} for each pass over the training images"
        reason = few if fitting < most else why_most
        yield Choice(option=f"--{stage}-training.batch-size", value=size, reason=reason)


def _augmentation(facts: Facts, config: RunConfig) -> Iterator[Choice]:
    augments = _number(facts).augments
    shift = min(config.vqvae.downsampling // 2, min(facts.image_shape[1:]) - 1) if augments else 0
    number = f"{facts.num_train:,} training images"
    reason = f"{number}, against overfitting" if augments else f"{number} are enough"
    yield Choice(option="--vqvae-augmentation.flip", value=augments, reason=reason)
    yield Choice(option="--prior-augmentation.flip", value=augments, reason=reason)
    yield Choice(option="--prior-augmentation.shift", value=shift, reason=reason)


def _crop(facts: Facts, config: RunConfig) -> Iterator[Choice]:
    _, height, width = facts.image_shape
    factor, wanted = config.vqvae.downsampling, _size(facts).crop
    largest = min(height, width) // factor * factor
    crop = wanted and min(wanted // factor * factor, largest)
    yield Choice(
        option="--vqvae-augmentation.crop",
        value=crop or None,
        reason=f"{height}x{width} pixels" + (", in less time" if crop else ", whole images"),
    )


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


MODEL_RULES: tuple[Rule, ...] = (
    _downsampling,
    _codebook_size,
    _vqvae_networks,
    _prior_network,
    _prior_heads,
    _batch_sizes,
    _augmentation,
    _crop,
)
"""Rules that need no speed, in their order."""
LENGTH_RULES: tuple[Rule, ...] = (_epochs, _validations)
"""Rules that need the speed of the chosen networks."""
CHOSEN_OPTIONS = (
    "--vqvae.downsampling",
    "--vqvae.quantizer.codebook-size",
    "--vqvae.width",
    "--vqvae.fine-width",
    "--vqvae.num-layers",
    "--prior.width",
    "--prior.num-layers",
    "--prior.dropout",
    "--prior.num-heads",
    "--vqvae-training.batch-size",
    "--prior-training.batch-size",
    "--vqvae-augmentation.flip",
    "--vqvae-augmentation.crop",
    "--prior-augmentation.flip",
    "--prior-augmentation.shift",
    *EPOCHS,
    "--vqvae-training.validate-every",
    "--vqvae-training.patience",
    "--prior-training.validate-every",
    "--prior-training.patience",
)
"""All options that the rules may choose."""


def _size(facts: Facts) -> _Size:
    return next(row for row in _SIZES if max(facts.image_shape[1:]) <= row.side)


def _number(facts: Facts) -> _Number:
    return next(row for row in _NUMBERS if facts.num_train < row.images)


def _codes_per_image(facts: Facts, config: RunConfig) -> int:
    _, height, width = facts.image_shape
    factor = config.vqvae.downsampling
    return -(-height // factor) * -(-width // factor)


def _num_validations(facts: Facts, training: TrainingConfig, work: float) -> int:
    """Counts validations of which each does `work` forward passes of training for an image."""
    fewest, most = _VALIDATIONS
    passes = 3 * training.epochs * facts.num_train  # a backward pass counts two
    affordable = _VALIDATION_SHARE * passes / (work * facts.num_validation)
    return int(min(max(affordable, fewest), most))


def _power_of_two(number: int) -> int:
    """Returns the largest power of two that is at most `number`, at least 1."""
    return 1 << max(number.bit_length() - 1, 0)


def _rounded(epochs: float) -> float:
    """Rounds to whole epochs, below 10 to two digits."""
    return float(round(epochs)) if epochs >= 10 else float(f"{epochs:.2g}")
