"""Search for sampling settings: every candidate's samples against the validation split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pipelines.cli.echo import say
from pipelines.data.image_set import DataSplits
from pipelines.evaluation.loaded_run import check_networks_folder, joined_sets, run_classifier
from pipelines.evaluation.metrics.feature_networks import classifier_network
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
from stage2_prior.sampling.settings import SamplingSettings


def tune_sampling(directory: RunDirectory, options: TuneSamplingOptions) -> None:
    """Measures all candidates, prints the best, and writes the record and the report.

    `TuneSamplingOptions.check` has accepted the options.
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
        say(f"wrote {path} and {write_report(directory.path, splits=splits)}")


def check_data(directory: RunDirectory) -> None:
    """Refuses, before any work, a run whose data have no labels or too few images to compare."""
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
    """Returns every temperature with every guidance scale, `compile` decided for all together."""
    prior = pipeline.prior
    schedule = options.settings.guidance_schedule
    if schedule != "constant" and not prior.can_guide:
        raise ValueError(
            f"guidance_schedule {schedule} needs a prior that can be guided, and this one was not "
            "trained without labels: leave the schedule out, or train a prior with "
            "--prior.label-dropout above 0"
        )
    scales = options.guidance_scales or (GUIDANCE_SCALES if prior.can_guide else (1.0,))
    candidates = options.candidates(scales)
    for candidate in candidates:
        pipeline.check(candidate, seed=options.seed)
    total = len(candidates) * options.sets * num_samples
    return [prior.resolve(candidate, total, labelled=True) for candidate in candidates]


def measure_candidates(
    directory: RunDirectory,
    options: TuneSamplingOptions,
    pipeline: GenerationPipeline,
    candidates: Sequence[SamplingSettings],
    splits: DataSplits,
) -> SamplingTuning:
    """Measures all candidates, and prints each when it is measured.

    All sample with the same random numbers, so that their differences are less noisy than the
    distances themselves. A set of samples has the size and the labels of the validation split. Each
    candidate has `compile` decided, and `check_data` has accepted the splits.
    """
    real, validation = joined_sets(splits.train, splits.validation), splits.validation
    device = next(pipeline.prior.parameters()).device
    say("feature classifier ...")
    classifier, key = run_classifier(
        directory.path, splits, real, device, resolve_precision("auto", device)
    )
    network, size = classifier_network(classifier, key), len(validation)
    features = network.features(validation.images)
    floor = frechet_distance(features, network.features(splits.train.images[:size]))
    say(
        f"FD-classifier of {options.sets} x {size:,} samples from the validation split "
        f"(of as many training images, which the classifier was trained on: {floor:.3f})"
    )
    if size < 10 * network.num_features:
        say(
            f"note: {size:,} images are few for {network.num_features:,} features: the "
            "distances are too high, and only to be compared with each other"
        )
    say(HEADING)
    assert validation.labels is not None, "check_data has accepted the data"
    labels = np.tile(validation.labels, options.sets)
    measured = []
    for candidate in candidates:
        images = pipeline(
            options.sets * size,
            torch.from_numpy(labels),
            settings=candidate,
            seed=options.seed,
            batch_size=options.batch_size,
        ).numpy()
        distances = tuple(
            frechet_distance(features, network.features(part))
            for part in np.array_split(images, options.sets)
        )
        accuracy = classifier.accuracy(images, labels)
        measured.append(MeasuredSettings(candidate, distances, accuracy))
        say(table_row(measured[-1]))
    return SamplingTuning(
        vqvae=pipeline.vqvae.weights_hash(),
        prior=pipeline.prior.weights_hash(),
        feature_network=key,
        images_per_set=size,
        seed=options.seed,
        floor=floor,
        measured=tuple(measured),
    )
