"""What a run says about itself: the plan before, one line after each phase, records for files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from pipelines.cli.command import say
from pipelines.data.folder import read_images
from pipelines.data.image_set import DataSplits, ImageSet
from pipelines.data.load import load_splits
from pipelines.data.location import DataLocation
from pipelines.data.names import listed, printable, tallied
from pipelines.runs.augmentation import also_seen
from pipelines.runs.config import RunConfig
from pipelines.runs.directory import RunDirectory
from pipelines.runs.starting_weights import start_prior_from, start_vqvae_from
from pipelines.training.config import TrainingConfig
from pipelines.training.metrics_log import MetricsRow
from pipelines.training.progress import format_figures
from pipelines.training.result import TrainingResult
from stage1_vqvae.model import VQVAE
from stage2_prior.grids import GridSpec
from stage2_prior.pretrained import build_prior

# Of all steps; best weights later than that are nothing to speak of.
_WELL_BEFORE_THE_END = 0.8


def load_run_splits(directory: RunDirectory, location: DataLocation | None = None) -> DataSplits:
    """The data a run was trained on.

    Args:
        directory: The run.
        location: Where the data are now; None looks where they were in training.

    Raises:
        FileNotFoundError: There are no data.
        ValueError: The data are others.
    """
    config = (location or DataLocation()).of(directory.config().data)
    try:
        splits = load_splits(config)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}; if the images of {directory.path} have moved, say where they are with "
            "--data.source"
        ) from error
    recorded = directory.data().fingerprint
    if splits.fingerprint != recorded:
        raise ValueError(
            f"the data of {directory.path} must be those it was trained on (fingerprint "
            f"{recorded}), but {printable(config.source)} holds others ({splits.fingerprint}): "
            "restore them, name where they are with --data.source, or train a new run"
        )
    return splits


def images_to_show(
    directory: RunDirectory,
    image_shape: tuple[int, int, int],
    split: str,
    path: Path | None,
    location: DataLocation | None = None,
) -> tuple[ImageSet, str]:
    """A split of a run's data, or a user's own files where there is a `path`.

    Args:
        directory: The run.
        image_shape: (C, H, W) that it was trained on; files are brought to it.
        split: train, validation or test; not looked at where there is a path.
        path: An image file or a folder of them, or None.
        location: Where the run's data are now; see `load_run_splits`.

    Returns:
        The images, and what they are in words.

    Raises:
        ValueError: Files cannot have so many channels, or cannot be read, or the run's data are no
            longer those.
        FileNotFoundError: There is no run or no such path.
    """
    if path is None:
        images = load_run_splits(directory, location).by_name[split]
        return images, f"the {split} split"
    if image_shape[0] not in (1, 3):
        raise ValueError(
            f"image files have 1 or 3 channels, but the run was trained on {image_shape[0]}: "
            "leave --images out and name a --split"
        )
    images, notes = read_images(path, image_shape)
    return images, "; ".join((printable(path), *notes))


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
        grids = tuple(
            GridSpec(height, width, size)
            for (height, width), size in zip(vqvae.grid_shapes, vqvae.codebook_sizes, strict=True)
        )
        num_views = config.augmentation.num_views
        prior = build_prior(config.prior, grids, splits.num_classes, num_views=num_views)
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


def test_row(phase: str, result: TrainingResult, values: dict[str, float]) -> MetricsRow:
    """The finished model's figures on the test split as a line of the metrics file."""
    return MetricsRow(
        phase=phase,
        kind="test",
        step=result.step,
        images_seen=result.images_seen,
        seconds=result.seconds,
        values=values,
    )


def say_training(phase: str, result: TrainingResult, values: dict[str, float], where: str) -> None:
    """The one line after a training phase."""
    early = ", stopped early" if result.stopped_early else ""
    say(
        f"{phase}: {format_figures(values)} {where}; {result.images_seen:,} images in "
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
