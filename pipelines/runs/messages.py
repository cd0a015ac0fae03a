"""What a run prints: its plan, and a line after each training."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pipelines.cli.echo import say
from pipelines.data.image_set import DataSplits
from pipelines.files.names import listed, printable, tallied
from pipelines.runs.augmentation import also_seen
from pipelines.runs.codes import grid_specs
from pipelines.runs.config import RunConfig
from pipelines.runs.starting_weights import start_prior_from, start_vqvae_from
from pipelines.training.config import TrainingConfig
from pipelines.training.progress import format_metrics
from pipelines.training.result import TrainingResult
from stage1_vqvae.model import VQVAE
from stage2_prior.pretrained import build_prior
from stage2_prior.spec import PriorSpec

# Of all steps; best weights later than that are nothing to speak of.
_WELL_BEFORE_THE_END = 0.8


def plan(config: RunConfig, splits: DataSplits) -> str:
    """What will be trained on what, in a few lines; builds both models without memory.

    Raises:
        ValueError: The settings do not go with the images' size, or with the run that one of the
            models starts from.
        FileNotFoundError: There is no such run.
    """
    config.augmentation.check_fits(splits.image_shape)
    with torch.device("meta"):
        vqvae = VQVAE(config.vqvae, splits.image_shape)
        grids = grid_specs(vqvae)
        extra = config.augmentation.num_extra_labels(splits.num_classes)
        prior = build_prior(
            config.prior,
            PriorSpec(grids=grids, num_classes=splits.num_classes, num_extra_labels=extra),
        )
    if config.vqvae_from is not None:
        start_vqvae_from(vqvae, config.vqvae_from)
    if config.prior_from is not None:
        start_prior_from(prior, config.prior_from)
    codes = " + ".join(f"{g.height}x{g.width} codes of {g.codebook_size}" for g in grids)
    return "\n".join(
        [
            f"data:  {_describe_data(config, splits)}",
            *(f"       {sentence}" for sentence in (*splits.notes, *_describe_classes(splits))),
            f"vqvae: {config.vqvae.quantizer.kind} quantizer, {codes}, "
            f"{_count(vqvae)}, {_length(config.vqvae_training, len(splits.train))}",
            f"prior: {config.prior.kind}, {_count(prior)}, "
            f"{_length(config.prior_training, len(splits.train))}"
            + (f", {seen}" if (seen := also_seen(config.augmentation.names)) else ""),
        ]
    )


def _describe_data(config: RunConfig, splits: DataSplits) -> str:
    channels, height, width = splits.image_shape
    count = splits.num_classes
    classes = "no labels" if count is None else f"{count} classes"
    sizes = ", ".join(f"{name} {len(images):,}" for name, images in splits.by_name.items())
    skipped = f"; {splits.skipped} broken files skipped" if splits.skipped else ""
    source = printable(config.data.source)
    return f"{source}, {height}x{width}x{channels}, {classes}: {sizes}{skipped}"


def _describe_classes(splits: DataSplits) -> Iterator[str]:
    """Sentences on how many training images there are of each class."""
    counts = dict(zip(splits.class_names, splits.train_images_per_class, strict=True))
    if counts:
        seen = (tallied(name, count) for name, count in counts.items() if count)
        yield f"training images per class: {listed(seen)}"
    if unseen := [name for name, count in counts.items() if not count]:
        yield (
            f"{len(unseen):,} of {len(counts):,} classes have no training image "
            f"({listed(unseen)}): they are not sampled unless --label names them"
        )


def say_training(phase: str, result: TrainingResult, values: dict[str, float]) -> None:
    """Prints the test metrics of a finished training, and how it ended."""
    early = ", stopped early" if result.stopped_early else ""
    say(
        f"{phase}: {format_metrics(values)} on the test split; {result.images_seen:,} images in "
        f"{result.seconds:.0f} s ({result.precision.name}), best weights of step "
        f"{result.best_step:,} of {result.step:,}{early}"
    )


def describe_fit(phase: str, result: TrainingResult, figure: str) -> str:
    """Says how a figure of the best weights differs between training and validation images.

    And whether validation turned up: the best weights are well before the last.

    Args:
        phase: Which training.
        result: How it ended, with `figure` and `train_` + `figure` among its metrics.
        figure: The monitored one.
    """
    best, last, training = result.best_metrics, result.last_metrics, f"train_{figure}"
    said = (
        f"{phase}: {figure} of the best weights {best[figure]:.4g} on the validation split, "
        f"{best[training]:.4g} on as many training images"
    )
    if result.best_step > _WELL_BEFORE_THE_END * result.step:
        return said
    return (
        f"{said}; validation has turned up since step {result.best_step:,}, to {last[figure]:.4g} "
        f"at step {result.step:,} ({last[training]:.4g} on training images): more training only "
        "learns these by heart"
    )


def _count(model: torch.nn.Module) -> str:
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters"


def _length(training: TrainingConfig, num_images: int) -> str:
    steps = training.total_steps(num_images)
    return f"{training.epochs:g} epochs = {steps:,} steps of {training.batch_size} images"
