"""The evaluation of a finished run: all sections together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.cli.echo import say
from pipelines.data.image_set import ImageSet
from pipelines.evaluation.conditions import conditions
from pipelines.evaluation.loaded_run import (
    EvaluatedRun,
    decoded_training,
    draw_samples,
    first_images,
    fixed_order,
)
from pipelines.evaluation.metrics.classification_accuracy import classification_accuracy
from pipelines.evaluation.metrics.feature_classifier import FeatureClassifier
from pipelines.evaluation.metrics.feature_encoder import NUM_FEATURES
from pipelines.evaluation.metrics.feature_networks import (
    EFFICIENTNET_CHANNELS,
    INCEPTION_CHANNELS,
    NO_EFFICIENTNET,
    NO_TORCH_FIDELITY,
    FeatureNetwork,
    efficientnet_network,
    efficientnet_weights_for,
    encoder_network,
    has_torch_fidelity,
    inception_network,
    inception_weights,
)
from pipelines.evaluation.metrics.precision_recall import NUM_NEIGHBOURS
from pipelines.evaluation.record import Evaluation, Group, Metric
from pipelines.evaluation.run_networks import needs_own_encoder, own_encoder, told_apart
from pipelines.evaluation.sections.generation import Compared, accuracy_metrics, distance_metrics
from pipelines.evaluation.sections.memorisation import memorisation_metrics
from pipelines.evaluation.sections.prior import prior_metrics
from pipelines.evaluation.sections.reconstruction import reconstruction_metrics
from pipelines.evaluation.settings import EvaluationSettings
from pipelines.files.environment import environment
from pipelines.runs.batches import reconstruct_images
from pipelines.runs.directory import RunDirectory
from pipelines.tuning.record import arguments, describe_settings
from stage2_prior.sampling.settings import SamplingSettings

_MAX_SETS, _MAX_NEIGHBOUR_SETS = 6, 3


@dataclass
class _Findings:
    """Metrics, notes and times so far."""

    metrics: list[Metric] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Measures the time of a part, and prints its name."""
        say(f"{part} ...")
        start = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - start


def evaluate_run(run: EvaluatedRun, settings: EvaluationSettings, *, batch_size: int) -> Evaluation:
    """Measures a run of `load_run`; its feature classifier is kept for the next evaluation."""
    device = run.device
    prior, labelled = run.pipeline.prior, run.pipeline.prior.num_classes is not None
    # The prior decides `compile`.
    sampling = prior.resolve(settings.sampling, run.num_samples, labelled=labelled)
    settings = replace(settings, sampling=sampling)
    found = _Findings()
    with found.timed("prior"):
        of_prior = prior_metrics(prior, run.dump, run.splits.image_shape[1:])
    with found.timed("reconstruction"):
        (bits,) = (metric.value for metric in of_prior if metric.name == "bits_per_image")
        vqvae, test = run.pipeline.vqvae, run.splits.test
        reconstructions = reconstruct_images(vqvae, test)
        found.metrics += reconstruction_metrics(vqvae, test, reconstructions, bits, device)
        test, reconstructions = first_images(test, run.side), reconstructions[: run.side]
    used = run.pipeline.settings
    if used not in (SamplingSettings(), replace(sampling, compile=used.compile)):
        found.notes.append(
            f"samples are measured with {describe_settings(sampling)}, but `sample` takes "
            f"{describe_settings(used)}, as chosen on the validation split: to measure those, "
            f"evaluate with{arguments(used)}"
        )
    with found.timed("samples"):
        samples = draw_samples(run, settings, batch_size)
    some_real = run.real.images[fixed_order(len(run.real))[: _MAX_SETS * run.side]]
    images = Compared(
        samples=_sets(samples.images, run.side),
        train=_sets(some_real, run.side),
        reconstructions=reconstructions,
    )
    networks = _networks(run, found)
    _measure_distances(run, test.images, images, networks, found)
    if run.num_cas:
        _measure_accuracy(run, samples, settings, found)
    with found.timed("memorisation"):
        memorised = memorisation_metrics(
            torch.from_numpy(images.samples[0]).to(device),
            torch.from_numpy(test.images.copy()).to(device),
            torch.from_numpy(reconstructions).to(device),
            run.splits.train.images,
            decoded_training(run),
        )
    metrics = (*found.metrics, *memorised.metrics, *of_prior)
    hashes = {network.name: network.hash for network in networks}
    return Evaluation(
        run=run.path.resolve().name,
        conditions=conditions(RunDirectory(run.path), settings, hashes),
        metrics=tuple(sorted(metrics, key=lambda metric: get_args(Group).index(metric.group))),
        notes=tuple(found.notes),
        warnings=memorised.warnings,
        seconds=found.seconds,
        environment=environment(device),
    )


def _networks(run: EvaluatedRun, found: _Findings) -> list[FeatureNetwork]:
    """Returns the available feature networks, and notes why one is missing."""
    splits, networks = run.splits, []
    channels = splits.image_shape[0]
    if told_apart(splits.num_classes) is None:
        what = "no labels" if splits.num_classes is None else "a single class"
        found.notes.append(
            f"the data have {what}, so there is neither a feature classifier nor a "
            "classification accuracy score"
        )
    if needs_own_encoder(splits.num_classes, channels):
        networks.append(_own_network(run, found))
    if (weights := efficientnet_weights_for(channels)) is not None:
        networks.append(efficientnet_network(weights, run.device))
    elif channels == EFFICIENTNET_CHANNELS:
        found.notes.append(NO_EFFICIENTNET)
    if channels not in INCEPTION_CHANNELS:
        found.notes.append("FID needs gray or RGB images, so it was not measured")
        return networks
    if not has_torch_fidelity():
        found.notes.append(NO_TORCH_FIDELITY)
        return networks
    weights = inception_weights()
    if weights is None:
        found.notes.append(
            "the weights of FID's Inception v3 are not in torch's cache, so FID was not measured: "
            "add --download-inception to fetch them (96 MB)"
        )
        return networks
    return [*networks, inception_network(weights, run.device)]


def _own_network(run: EvaluatedRun, found: _Findings) -> FeatureNetwork:
    """Returns the network that is trained on the run's own data, and notes what it is."""
    test = run.splits.test
    with found.timed("feature network"):
        encoder, key = own_encoder(run.path, run.splits, run.real, run.device, run.precision)
        network, how = encoder_network(encoder, key), "to tell its images apart, without labels"
        if isinstance(encoder, FeatureClassifier):
            assert test.labels is not None
            accuracy = encoder.accuracy(test.images, test.labels)
            how = f"on the data's own labels, with a test accuracy of {accuracy:.1%}"
    found.notes.append(
        f"{network.frechet} and {network.kernel} use {NUM_FEATURES} features of network {key}, "
        f"trained {how}; they compare runs on the same data and are not FID"
    )
    return network


def _measure_distances(
    run: EvaluatedRun,
    test: NDArray[np.uint8],
    images: Compared[NDArray[np.uint8]],
    networks: list[FeatureNetwork],
    found: _Findings,
) -> None:
    for network in networks:
        with found.timed(f"distances ({network.name})"):
            slow = not network.is_own and run.device.type == "cpu"
            found.metrics += distance_metrics(
                network,
                test,
                images,
                max_sets=1 if slow else _MAX_SETS,
                max_neighbour_sets=1 if slow else _MAX_NEIGHBOUR_SETS,
            )
        if run.side < 10 * network.num_features:
            found.notes.append(
                f"{run.side:,} images per set are few for {network.num_features:,} features: "
                f"{network.frechet} is biased upwards, so compare it only with that of as many "
                "images"
            )
    if networks and run.side <= NUM_NEIGHBOURS:
        found.notes.append(
            f"precision, recall, density and coverage need more than {NUM_NEIGHBOURS} images per "
            f"set, got {run.side}, so they were not measured"
        )


def _measure_accuracy(
    run: EvaluatedRun, samples: ImageSet, settings: EvaluationSettings, found: _Findings
) -> None:
    assert run.splits.num_classes is not None, "num_cas is 0 without labels"
    with found.timed("classification accuracy"):
        accuracy = classification_accuracy(
            first_images(samples, run.num_cas),
            run.real,
            run.splits.test,
            run.splits.num_classes,
            seeds=settings.seeds,
            device=run.device,
            precision=run.precision,
        )
    found.metrics += accuracy_metrics(accuracy, run.num_cas)


def _sets(images: NDArray[np.uint8], size: int) -> tuple[NDArray[np.uint8], ...]:
    """Splits images into disjoint sets of `size`; a remainder is not used."""
    count = min(len(images) // size, _MAX_SETS)
    return tuple(images[i * size : (i + 1) * size] for i in range(count))
