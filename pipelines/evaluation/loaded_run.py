"""A finished run loaded for an evaluation: models, images and samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.data.image_set import DataSplits, ImageSet
from pipelines.data.location import DataLocation
from pipelines.evaluation.run_networks import told_apart
from pipelines.evaluation.settings import EvaluationSettings
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.runs.batches import code_batches
from pipelines.runs.codes import read_own_codes
from pipelines.runs.data import load_run_splits
from pipelines.runs.directory import RunDirectory
from pipelines.training.precision import Precision, resolve_precision
from stage1_vqvae.code_dump import CodeDump

_MIN_SETS = 2  # for a standard deviation


@dataclass(frozen=True)
class EvaluatedRun:
    """A run to evaluate, the device, and numbers of images."""

    path: Path
    splits: DataSplits
    real: ImageSet
    """Training and validation images."""
    pipeline: GenerationPipeline
    dump: CodeDump
    device: torch.device
    precision: Precision
    side: int
    """Images in each set of a distance."""
    num_cas: int
    """Samples for the classification accuracy score; 0 without labels."""

    @property
    def num_samples(self) -> int:
        """Number of samples to generate."""
        return max(self.num_cas, _MIN_SETS * self.side)


def load_run(
    directory: RunDirectory,
    settings: EvaluationSettings,
    device: torch.device,
    location: DataLocation | None = None,
) -> EvaluatedRun:
    """Loads a run with both models and the code dump; `location` is where its data are now.

    Raises:
        ValueError: There are too few images.
    """
    pipeline = GenerationPipeline.from_pretrained(directory.path)
    pipeline.check(settings.sampling, seed=settings.seed)
    dump = read_own_codes(directory, pipeline.vqvae)
    splits = load_run_splits(directory, location)
    real = joined_sets(splits.train, splits.validation)
    side = min(settings.side, len(splits.test), len(real))
    if side < 2:
        raise ValueError(
            f"an evaluation compares at least 2 test images, but the test split of "
            f"{directory.path} has {len(splits.test)}: train on more images"
        )
    return EvaluatedRun(
        path=directory.path,
        splits=splits,
        real=real,
        pipeline=pipeline.to(device),
        dump=dump,
        device=device,
        precision=resolve_precision("auto", device),
        side=side,
        num_cas=settings.num_cas_samples(len(real)) if told_apart(splits.num_classes) else 0,
    )


def draw_samples(run: EvaluatedRun, settings: EvaluationSettings, batch_size: int) -> ImageSet:
    """Generates samples whose classes are as frequent as those of the real images."""
    labels = None
    if run.real.labels is not None and run.pipeline.prior.num_classes is not None:
        labels = np.resize(run.real.labels[fixed_order(len(run.real))], run.num_samples)
    images = run.pipeline(
        run.num_samples,
        None if labels is None else torch.from_numpy(labels),
        settings=settings.sampling,
        seed=settings.seed,
        batch_size=batch_size,
    )
    return ImageSet(images.numpy(), labels)


def decoded_training(run: EvaluatedRun) -> NDArray[np.uint8]:
    """Decodes the codes of the training images: uint8 (N, C, H, W)."""
    batches = code_batches(run.dump.splits["train"])
    decoded = [run.pipeline.decode_in_batches(codes, len(codes[0])) for codes, *_ in batches]
    images: NDArray[np.uint8] = torch.cat(decoded).numpy()
    return images


def first_images(images: ImageSet, count: int) -> ImageSet:
    """Returns the first images of a set, without a copy."""
    return ImageSet(images.images[:count], None if images.labels is None else images.labels[:count])


def joined_sets(first: ImageSet, second: ImageSet) -> ImageSet:
    """Joins the images of two sets, and the labels if both have some."""
    labels = None
    if first.labels is not None and second.labels is not None:
        labels = np.concatenate([first.labels, second.labels])
    return ImageSet(np.concatenate([first.images, second.images]), labels)


def fixed_order(count: int) -> NDArray[np.int64]:
    """Returns a permutation, always the same for one length."""
    order: NDArray[np.int64] = np.random.default_rng(0).permutation(count)
    return order
