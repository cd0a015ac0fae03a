"""The rules by which images choose models, batches and augmentation. Imports no torch.

All numbers are in the tables at the top. A rule yields choices from the facts and from the settings
so far, which have the choices of the rules before it and all that the user gave.
"""

# ruff: noqa: ARG001 - all rules take the same arguments

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from pipelines.files.names import counted
from pipelines.runs.choices import Choice, Facts, Rule
from pipelines.runs.config import RunConfig

CHOOSING_RECIPES = ("folder-64", "folder-128", "folder-256")
FEWEST_IMAGES = 50  # with fewer, a plan warns of what becomes of the samples
LARGEST_SIDE = 256  # pixels; a plan says of larger images that none were measured
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
"""The rules in their order; those of `length_rules` follow."""
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


def _power_of_two(number: int) -> int:
    """Returns the largest power of two that is at most `number`, at least 1."""
    return 1 << max(number.bit_length() - 1, 0)
