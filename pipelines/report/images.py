"""The images of a report: reconstructions, samples by class, samples by setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.data.image_set import DataSplits, ImageSet
from pipelines.evaluation.metrics.nearest_images import nearest_training_images
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.report.run_record import RunRecord
from pipelines.runs.batches import reconstruct_images
from pipelines.runs.data import load_run_splits
from pipelines.runs.directory import RunDirectory
from stage2_prior.sampling.settings import SamplingSettings

GUIDANCE_SCALES = (1.0, 1.5, 2.0, 3.0)
TEMPERATURES = (0.7, 0.85, 1.0, 1.15)
MAX_CLASSES = 20
"""Number of classes with a row of samples."""
_ROW_WIDTH = 320  # pixels, approximately
_MIN_COLUMNS, _MAX_COLUMNS = 4, 10
_NUM_RECONSTRUCTIONS = 20
# From so many codes on sampling is slow, and rows are short.
_MANY_CODES = 1024


@dataclass(frozen=True, eq=False)
class Strip:
    """One row of images: the same seeds and labels under one setting."""

    name: str
    """The class or setting of the row, e.g. `1.5`."""
    images: NDArray[np.uint8]
    """uint8 (N, C, H, W)."""


@dataclass(frozen=True, eq=False)
class NearestRow:
    """Samples and the training images that they are nearest to."""

    samples: NDArray[np.uint8]
    """uint8 (N, C, H, W)."""
    training: NDArray[np.uint8]
    """uint8 (N, C, H, W), the nearest training image of each."""
    distances: tuple[float, ...]
    """(N,) root mean square differences of their pixels, in gray levels of 0..255."""


@dataclass(frozen=True, eq=False)
class ReportImages:
    """All images of a report; empty if the run has no model for them."""

    originals: NDArray[np.uint8] | None = None
    """uint8 (N, C, H, W), of the test split."""
    reconstructions: NDArray[np.uint8] | None = None
    """uint8 (N, C, H, W), of `originals`."""
    samples: tuple[Strip, ...] = ()
    """One row per class, or rows without a name."""
    guidance: tuple[Strip, ...] = ()
    temperatures: tuple[Strip, ...] = ()
    nearest: NearestRow | None = None
    """Some of the samples with the training images they are nearest to."""
    seed: int = 0
    problem: str = ""
    """Why pictures of the data are missing, as a sentence."""


def make_images(record: RunRecord, splits: DataSplits | None, device: torch.device) -> ReportImages:
    """Reconstructs test images and samples under several settings; loads `splits` if None."""
    images = ReportImages(seed=record.config.seed)
    if record.vqvae is None:
        return images
    vqvae = record.vqvae.to(device)
    try:
        splits = splits or load_run_splits(RunDirectory(record.path))
    except (OSError, ValueError) as error:  # models outlive their data
        images = replace(images, problem=f"Pictures of the data need its images: {error}.")
    else:
        test = splits.test
        columns = columns_for(test.image_shape[2])
        in_whole_rows = max(columns, _NUM_RECONSTRUCTIONS // columns * columns)
        originals = test.images[:in_whole_rows].copy()
        reconstructions = reconstruct_images(vqvae, ImageSet(originals))
        images = replace(images, originals=originals, reconstructions=reconstructions)
    if record.prior is None:
        return images
    data = record.data
    pipeline = GenerationPipeline(
        vqvae, record.prior, data.class_names, data.train_images_per_class, record.settings
    ).to(device)
    guidance = [SamplingSettings(guidance_scale=scale) for scale in GUIDANCE_SCALES]
    temperatures = [SamplingSettings(temperature=temperature) for temperature in TEMPERATURES]
    samples = class_strips(pipeline, images.seed)
    return replace(
        images,
        samples=samples,
        nearest=None if splits is None else nearest_row(samples, splits.train, device),
        guidance=_strips(pipeline, images.seed, guidance, "guidance_scale")
        if record.prior.can_guide
        else (),
        temperatures=_strips(pipeline, images.seed, temperatures, "temperature"),
    )


def class_strips(pipeline: GenerationPipeline, seed: int) -> tuple[Strip, ...]:
    """Samples a row for each of the first classes with training images.

    Without classes, the rows have no name.
    """
    columns = columns_of(pipeline)
    if pipeline.prior.num_classes is None:
        rows = 5
        images = pipeline(rows * columns, seed=seed).numpy()
        return tuple(Strip("", part) for part in np.split(images, rows))
    classes = pipeline.trained_labels[:MAX_CLASSES]
    labels = classes.repeat_interleave(columns)
    images = pipeline(len(labels), labels, seed=seed).numpy()
    parts = zip(classes.tolist(), np.split(images, len(classes)), strict=True)
    return tuple(Strip(class_name(pipeline, label), part) for label, part in parts)


def nearest_row(strips: Sequence[Strip], training: ImageSet, device: torch.device) -> NearestRow:
    """Finds the nearest training image, by pixels, of a row of samples taken from all strips."""
    columns = len(strips[0].images)
    shown = np.stack([strips[i % len(strips)].images[i // len(strips)] for i in range(columns)])
    found = nearest_training_images(torch.from_numpy(shown).to(device), training.images)
    nearest = training.images[found.index.numpy()]
    return NearestRow(shown, nearest, tuple(found.distance.tolist()))


def columns_of(pipeline: GenerationPipeline) -> int:
    """Returns the number of images in a row."""
    columns = columns_for(pipeline.vqvae.image_shape[2])
    return columns if pipeline.prior.num_codes < _MANY_CODES else min(columns, _MIN_COLUMNS)


def class_name(pipeline: GenerationPipeline, label: int) -> str:
    """Returns the name of a class, or its number."""
    names = pipeline.class_names
    return names[label] if label < len(names) else f"class {label}"


def _strips(
    pipeline: GenerationPipeline, seed: int, settings: Sequence[SamplingSettings], option: str
) -> tuple[Strip, ...]:
    """Samples a row per setting, named by an option, with the same noise and labels."""
    columns = columns_of(pipeline)
    return tuple(
        Strip(f"{getattr(one, option):g}", pipeline(columns, settings=one, seed=seed).numpy())
        for one in settings
    )


def columns_for(width: int) -> int:
    """Returns an even number of images for a row, so that it can break in the middle."""
    return max(_MIN_COLUMNS, min(_MAX_COLUMNS, _ROW_WIDTH // (width + 2) // 2 * 2))
