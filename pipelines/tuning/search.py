"""Search for sampling settings: every candidate's samples against the validation split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.cli.echo import say
from pipelines.data.image_set import DataSplits, ImageSet
from pipelines.evaluation.conditions import check_networks_folder
from pipelines.evaluation.loaded_run import joined_sets, run_classifier
from pipelines.evaluation.metrics.feature_networks import FeatureNetwork, classifier_network
from pipelines.evaluation.metrics.frechet import frechet_distance
from pipelines.files.atomic import refuse_unwritable
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.report.page import write_report
from pipelines.runs.data import load_run_splits
from pipelines.runs.directory import RunDirectory
from pipelines.training.device import choose_device
from pipelines.training.precision import resolve_precision
from pipelines.tuning.options import GUIDANCE_SCALES, TuneSamplingOptions
from pipelines.tuning.record import (
    HEADING,
    TUNING_FILE,
    MeasuredSettings,
    SamplingTuning,
    arguments,
    describe_choice,
    table_row,
)
from stage2_prior.artifact import weights_hash
from stage2_prior.config import SamplingSettings
from stage2_prior.sampling.checks import decide_compilation

LabelAccuracy = Callable[[NDArray[np.uint8], NDArray[np.int64]], float]
"""Share of images uint8 (N, C, H, W) that a classifier assigns to their labels, int64 (N,)."""


def tune_sampling(directory: RunDirectory, options: TuneSamplingOptions) -> None:
    """Measures all candidates, prints the best, and writes the record and the report.

    Args:
        directory: A finished run.
        options: Which `TuneSamplingOptions.check` has accepted.

    Raises:
        FileNotFoundError: A part of the run is missing.
        ValueError: The run has too few images or no labels, cannot sample so, or is damaged.
        OSError: The record cannot be written.
    """
    check_data(directory)
    path = directory.path / TUNING_FILE
    if path.is_dir():
        raise ValueError(f"{path} cannot be written, since it is a directory: move it away")
    refuse_unwritable(directory.path)
    check_networks_folder(directory)
    device = choose_device(options.device)
    with directory.owned("measured", take_turns=True):
        pipeline = GenerationPipeline.from_pretrained(directory.path).to(device)
        num_samples = directory.data().num_images.validation
        candidates = candidate_settings(options, pipeline, num_samples)
        splits = load_run_splits(directory, options.data)
        tuning = measure_candidates(directory, options, pipeline, candidates, splits)
        say(describe_choice(tuning))
        chosen = arguments(tuning.nearest.settings)
        say(f"next: python -m pipelines.evaluate {directory.option}{chosen}")
        tuning.write(path)
        say(f"wrote {path} and {write_report(directory.path, test=splits.test)}")


def check_data(directory: RunDirectory) -> None:
    """Refuses early, before any work, a run on whose data nothing can be compared.

    Raises:
        ValueError: They have no labels, or too few images.
    """
    data = directory.data()
    if data.num_classes is None:
        raise ValueError(
            "samples are compared in the features of a classifier, which needs labels, but the "
            f"data of {directory.path} have none: train on labelled data"
        )
    sizes = data.num_images
    if not 2 <= sizes.validation <= sizes.train:
        raise ValueError(
            "at least 2 validation images and as many training images are required, got "
            f"{sizes.validation} and {sizes.train}: train a run with another "
            "--data.validation-fraction"
        )


def candidate_settings(
    options: TuneSamplingOptions, pipeline: GenerationPipeline, num_samples: int
) -> list[SamplingSettings]:
    """Every temperature with every guidance scale, `compile` decided for all together.

    Args:
        options: What to try.
        pipeline: Samples.
        num_samples: Samples in a set.

    Raises:
        ValueError: The prior cannot sample with one of these settings.
    """
    prior = pipeline.prior
    can_guide = prior.num_classes is not None and prior.config.label_dropout > 0
    schedule = options.settings.guidance_schedule
    if schedule != "constant" and not can_guide:
        raise ValueError(
            f"guidance_schedule {schedule} needs a prior that can be guided, and this one was not "
            "trained without labels: leave the schedule out, or train a prior with "
            "--prior.label-dropout above 0"
        )
    scales = options.guidance_scales or (GUIDANCE_SCALES if can_guide else (1.0,))
    candidates = options.candidates(scales)
    for candidate in candidates:
        pipeline.check(candidate, seed=options.seed)
    num_draws = len(candidates) * options.sets * num_samples * prior.num_codes
    device = next(prior.parameters()).device
    possible = prior.has_sampler_options
    return [decide_compilation(c, num_draws, device, possible=possible) for c in candidates]


def measure_candidates(
    directory: RunDirectory,
    options: TuneSamplingOptions,
    pipeline: GenerationPipeline,
    candidates: Sequence[SamplingSettings],
    splits: DataSplits,
) -> SamplingTuning:
    """Measures all candidates, and prints each when it is measured.

    Args:
        directory: The run.
        options: How many samples.
        pipeline: The run's models, where to compute.
        candidates: What is tried.
        splits: The run's data, which `check_data` has accepted.

    Raises:
        ValueError: The feature classifier that was kept is damaged.
    """
    real, validation = joined_sets(splits.train, splits.validation), splits.validation
    device = next(pipeline.prior.parameters()).device
    say("feature classifier ...")
    classifier, key = run_classifier(
        directory.path, splits, real, device, resolve_precision("auto", device)
    )
    network = classifier_network(classifier, key)
    floor = frechet_distance(
        network.features(validation.images),
        network.features(splits.train.images[: len(validation)]),
    )
    say(
        f"FD-classifier of {options.sets} x {len(validation):,} samples from the validation split "
        f"(of as many training images, which the classifier was trained on: {floor:.3f})"
    )
    if len(validation) < 10 * network.num_features:
        say(
            f"note: {len(validation):,} images are few for {network.num_features:,} features: the "
            "distances are too high, and only to be compared with each other"
        )
    say(HEADING)
    measured = []
    for result in measure_settings(
        pipeline,
        candidates,
        validation,
        network,
        sets=options.sets,
        seed=options.seed,
        batch_size=options.batch_size,
        label_accuracy=classifier.accuracy,
    ):
        say(table_row(result))
        measured.append(result)
    return SamplingTuning(
        vqvae=pipeline.vqvae.weights_hash(),
        prior=weights_hash(pipeline.prior.state_dict()),
        feature_network=key,
        images_per_set=len(validation),
        seed=options.seed,
        floor=floor,
        measured=tuple(measured),
    )


def measure_settings(
    pipeline: GenerationPipeline,
    candidates: Sequence[SamplingSettings],
    real: ImageSet,
    network: FeatureNetwork,
    *,
    sets: int,
    seed: int,
    batch_size: int,
    label_accuracy: LabelAccuracy | None = None,
) -> Iterator[MeasuredSettings]:
    """Measures one candidate after the other.

    All sample with the same random numbers, so that their differences are less noisy than the
    distances themselves.

    Args:
        pipeline: Samples.
        candidates: The settings, each with `compile` decided.
        real: Images to compare with. Each set of samples is as large, and its classes are as
            frequent.
        network: The feature space.
        sets: How many sets of samples of each candidate.
        seed: Of the samples.
        batch_size: Samples made at once.
        label_accuracy: Classifies samples; None leaves that out.
    """
    size = len(real)
    features = network.features(real.images)
    labels = None
    if real.labels is not None and pipeline.prior.num_classes is not None:
        labels = np.tile(real.labels, sets)
    for candidate in candidates:
        images = pipeline(
            sets * size,
            None if labels is None else torch.from_numpy(labels),
            settings=candidate,
            seed=seed,
            batch_size=batch_size,
        ).numpy()
        yield MeasuredSettings(
            candidate,
            tuple(
                frechet_distance(features, network.features(images[i * size : (i + 1) * size]))
                for i in range(sets)
            ),
            None if label_accuracy is None or labels is None else label_accuracy(images, labels),
        )
