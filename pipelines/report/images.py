"""What the models draw for a report: reconstructions, samples by class, strips of settings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.data.image_set import ImageSet
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.report.run_record import RunRecord
from pipelines.runs.batches import reconstruct_images
from pipelines.runs.data import load_run_splits
from pipelines.runs.directory import RunDirectory
from stage2_prior.sampling.settings import SamplingSettings

GUIDANCE_SCALES = (1.0, 1.5, 2.0, 3.0)
TEMPERATURES = (0.7, 0.85, 1.0, 1.15)
MAX_CLASSES = 20
"""Classes with a row of samples, the first ones."""
_ROW_WIDTH = 320  # pixels of a row of images, about
_MIN_COLUMNS, _MAX_COLUMNS = 4, 10
_NUM_RECONSTRUCTIONS = 20
# A grid of so many codes takes as long as all of the rest: fewer are drawn.
_MANY_CODES = 1024


@dataclass(frozen=True, eq=False)
class Strip:
    """One row of images: the same seeds and labels under one setting."""

    name: str
    """What is different in this row, e.g. a class or `scale 1.5`."""
    images: NDArray[np.uint8]
    """uint8 (N, C, H, W)."""


@dataclass(frozen=True, eq=False)
class ReportImages:
    """All pictures of a report; empty where the run cannot give them."""

    originals: NDArray[np.uint8] | None = None
    """uint8 (N, C, H, W), of the test split."""
    reconstructions: NDArray[np.uint8] | None = None
    """Of the same images."""
    samples: tuple[Strip, ...] = ()
    """A row per class, or rows without a name."""
    guidance: tuple[Strip, ...] = ()
    temperatures: tuple[Strip, ...] = ()
    seed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall clock of what was drawn."""
    problems: tuple[str, ...] = ()
    """What could not be drawn, one sentence each."""


def draw(record: RunRecord, test: ImageSet | None, device: torch.device) -> ReportImages:
    """Draws everything that a run can give.

    Args:
        record: The run.
        test: The test split, or None to load it.
        device: Where to compute.
    """
    problems: list[str] = []
    originals = reconstructions = None
    seconds = {}
    if record.vqvae is not None:
        start = time.perf_counter()
        try:
            test = test or load_run_splits(RunDirectory(record.path)).test
        except (OSError, ValueError) as error:  # models outlive their data
            problems.append(f"Reconstructions need the test images: {error}.")
        else:
            originals = _std(test, columns_for(test.image_shape[2]))
            reconstructions = reconstruct_images(record.vqvae.to(device), ImageSet(originals))
            seconds["reconstructions"] = time.perf_counter() - start
    seed = record.config.seed
    samples: tuple[Strip, ...] = ()
    guidance: tuple[Strip, ...] = ()
    temperatures: tuple[Strip, ...] = ()
    if record.vqvae is not None and record.prior is not None:
        start = time.perf_counter()
        pipeline = GenerationPipeline(
            record.vqvae, record.prior, record.class_names, record.train_images_per_class
        ).to(device)
        samples = class_strips(pipeline, seed)
        guidance = guidance_strips(pipeline, seed)
        temperatures = temperature_strips(pipeline, seed)
        seconds["samples"] = time.perf_counter() - start
    return ReportImages(
        originals=originals,
        reconstructions=reconstructions,
        samples=samples,
        guidance=guidance,
        temperatures=temperatures,
        seed=seed,
        seconds=seconds,
        problems=tuple(problems),
    )


def class_strips(pipeline: GenerationPipeline, seed: int) -> tuple[Strip, ...]:
    """A row of samples for each of the first classes that had training images.

    Without classes, rows without a name.
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


def guidance_strips(pipeline: GenerationPipeline, seed: int) -> tuple[Strip, ...]:
    """A row per guidance scale; none where the prior was trained without label dropout."""
    prior = pipeline.prior
    if prior.num_classes is None or not prior.config.label_dropout:
        return ()
    settings = [SamplingSettings(guidance_scale=scale) for scale in GUIDANCE_SCALES]
    return _strips(pipeline, seed, [f"{scale:g}" for scale in GUIDANCE_SCALES], settings)


def temperature_strips(pipeline: GenerationPipeline, seed: int) -> tuple[Strip, ...]:
    """A row per temperature."""
    settings = [SamplingSettings(temperature=temperature) for temperature in TEMPERATURES]
    return _strips(pipeline, seed, [f"{temperature:g}" for temperature in TEMPERATURES], settings)


def columns_of(pipeline: GenerationPipeline) -> int:
    """Images in a row."""
    columns = columns_for(pipeline.vqvae.image_shape[2])
    return columns if pipeline.prior.num_codes < _MANY_CODES else min(columns, _MIN_COLUMNS)


def class_name(pipeline: GenerationPipeline, label: int) -> str:
    """The name of a class, or its number where names are not known."""
    names = pipeline.class_names
    return names[label] if label < len(names) else f"class {label}"


def _strips(
    pipeline: GenerationPipeline,
    seed: int,
    names: Sequence[str],
    settings: Sequence[SamplingSettings],
) -> tuple[Strip, ...]:
    """The same indices, so the same noise and labels, in every row."""
    columns = columns_of(pipeline)
    return tuple(
        Strip(name, pipeline(columns, settings=setting, seed=seed).numpy())
        for name, setting in zip(names, settings, strict=True)
    )


def columns_for(width: int) -> int:
    """Images of a row, by their width: an even number, so that a row breaks in the middle."""
    return max(_MIN_COLUMNS, min(_MAX_COLUMNS, _ROW_WIDTH // (width + 2) // 2 * 2))


def _std(images: ImageSet, columns: int) -> NDArray[np.uint8]:
    """The first images; whole rows of them where there are enough."""
    count = max(columns, _NUM_RECONSTRUCTIONS // columns * columns)
    return images.images[:count].copy()
