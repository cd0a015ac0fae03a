"""What a run prints: its plan, and a line after each training."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from pipelines.cli.echo import say
from pipelines.data.image_set import DataSplits
from pipelines.files.names import counted, listed, printable, tallied
from pipelines.runs.codes import grid_specs
from pipelines.runs.config import RunConfig
from pipelines.runs.models import new_prior, new_vqvae, num_parameters
from pipelines.runs.overfitting import Fit, PhaseName, verdict
from pipelines.runs.prior_augmentation import also_seen
from pipelines.training.config import TrainingConfig
from pipelines.training.progress import format_metrics
from pipelines.training.result import TrainingResult


def plan_data(config: RunConfig, splits: DataSplits) -> str:
    """Describes the images, their splits and classes in a few lines."""
    sentences = (*splits.notes, *_describe_classes(splits))
    lines = [f"data:  {_describe_data(config, splits)}", *(f"       {s}" for s in sentences)]
    return "\n".join(lines)


def plan_models(config: RunConfig, splits: DataSplits) -> tuple[str, str]:
    """Describes the VQ-VAE and the prior in a line each; builds both on the meta device."""
    config.prior_augmentation.check_fits(splits.image_shape)
    vqvae = new_vqvae(config, splits.image_shape, device="meta")
    grids = grid_specs(vqvae)
    prior = new_prior(config, grids, splits.num_classes, device="meta")
    codes = " + ".join(f"{g.height}x{g.width} codes of {g.codebook_size}" for g in grids)
    seen = str(config.vqvae_augmentation)
    views = also_seen(config.prior_augmentation.names)
    return (
        f"vqvae: {config.vqvae.quantizer.kind} quantizer, {codes}, {_count(vqvae)}, "
        f"{_length(config.vqvae_training, len(splits.train))}" + (f", {seen}" if seen else ""),
        f"prior: {config.prior.kind}, {_count(prior)}, "
        f"{_length(config.prior_training, len(splits.train))}" + (f", {views}" if views else ""),
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
    """Yields sentences on the numbers of training images per class."""
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


def say_fit(phase: PhaseName, result: TrainingResult, config: RunConfig) -> None:
    """Prints whether a finished training overfits, and what to do if it does."""
    found = Fit.of(phase, result.best_step, result.best_metrics, result.step, result.last_metrics)
    if found is not None:
        say(f"{phase}: {verdict(found, config)}")


def _count(model: nn.Module) -> str:
    count = num_parameters(model)
    return f"{count / 1e6:.2f} M parameters" if count >= 100_000 else f"{count:,} parameters"


def _length(training: TrainingConfig, num_images: int) -> str:
    steps = counted(training.total_steps(num_images), "step")
    passes = "epoch" if training.epochs == 1 else "epochs"
    return f"{training.epochs:g} {passes} = {steps} of {counted(training.batch_size, 'image')}"
