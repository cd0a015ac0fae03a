"""Everything that is measured of a finished run, put together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.command import say
from pipelines.data.image_set import DataSplits, ImageSet
from pipelines.dump_codes import read_own_codes
from pipelines.environment import environment
from pipelines.evaluation.classification_accuracy import classification_accuracy
from pipelines.evaluation.evaluation_record import Evaluation, Figure
from pipelines.evaluation.evaluation_settings import EvaluationSettings
from pipelines.evaluation.feature_classifier import NUM_FEATURES, cached_classifier
from pipelines.evaluation.feature_neighbours import NUM_NEIGHBOURS
from pipelines.evaluation.feature_networks import (
    FeatureNetwork,
    classifier_network,
    inception_network,
    inception_weights,
)
from pipelines.evaluation.generation_figures import (
    ComparedImages,
    accuracy_figures,
    distance_figures,
)
from pipelines.evaluation.memorisation_figures import memorisation_figures
from pipelines.evaluation.prior_figures import prior_figures
from pipelines.evaluation.reconstruction_figures import reconstruction_figures
from pipelines.generation import GenerationPipeline
from pipelines.run_dir import RunDirectory
from pipelines.summaries import load_run_splits
from pipelines.tasks import code_batches, image_batches
from pipelines.training.precision import Precision, resolve_precision
from stage1_vqvae.code_dump import SplitCodes
from stage1_vqvae.model import VQVAE

FEATURE_NETWORKS = ".feature-networks"
_MIN_SETS, _MAX_SETS, _MAX_NEIGHBOUR_SETS = 2, 6, 3


@dataclass
class _Findings:
    """What grows while a run is measured."""

    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Takes the time of a part and says that it began."""
        say(f"{part} ...")
        start = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - start


def evaluate_run(
    directory: RunDirectory,
    settings: EvaluationSettings,
    *,
    device: torch.device,
    batch_size: int,
    download_inception: bool = False,
) -> Evaluation:
    """Measures a finished run; the feature classifier is kept beside it for the next evaluation.

    Args:
        directory: With both models and the code dump.
        settings: What is measured on how many images.
        device: Where to compute.
        batch_size: Samples drawn at once.
        download_inception: Whether to fetch Inception's weights where they are missing.

    Raises:
        FileNotFoundError: A part of the run is missing.
        ValueError: It is damaged, its data have changed, or there are too few images.
    """
    splits = load_run_splits(directory.config(), directory)
    pipeline = GenerationPipeline.from_pretrained(directory.path)
    dump = read_own_codes(directory, pipeline.vqvae)
    pipeline.to(device)
    real = _joined(splits.train, splits.validation)
    side = min(settings.side, len(splits.test), len(real))
    if side < 2:
        raise ValueError(
            f"an evaluation compares at least 2 test images, but the test split of "
            f"{directory.path} has {len(splits.test)}: train on more images"
        )
    found = _Findings()
    with found.timed("prior"):
        of_prior = prior_figures(pipeline.prior, dump, splits.image_shape[1:])
    with found.timed("reconstruction"):
        bits = of_prior[1].value
        found.figures += reconstruction_figures(pipeline.vqvae, splits.test, bits, device)
        test = splits.test.take(np.arange(side))
        reconstructions = _reconstruct(pipeline.vqvae, test, device)
    num_cas = settings.num_cas_samples(len(real)) if splits.num_classes else 0
    with found.timed("samples"):
        total = max(num_cas, _MIN_SETS * side)
        samples = _draw(pipeline, settings, real, total, batch_size)
    images = ComparedImages(
        test=test.images,
        reconstructions=reconstructions,
        train=_sets(real.images[_order(len(real))[: _MAX_SETS * side]], side),
        samples=_sets(samples.images, side),
    )
    precision = resolve_precision("auto", device)
    networks = _networks(
        directory.path, splits, real, device, precision, found, download=download_inception
    )
    for network in networks:
        with found.timed(f"distances ({network.name})"):
            slow = network.name == "inception" and device.type == "cpu"
            found.figures += distance_figures(
                network,
                images,
                max_sets=1 if slow else _MAX_SETS,
                max_neighbour_sets=1 if slow else _MAX_NEIGHBOUR_SETS,
            )
    _note_few_images(found, side, networks)
    if splits.num_classes:
        with found.timed("classification accuracy"):
            accuracy = classification_accuracy(
                samples.take(np.arange(num_cas)),
                real,
                splits.test,
                splits.num_classes,
                seeds=settings.seeds,
                device=device,
                precision=precision,
            )
        found.figures += accuracy_figures(accuracy, num_cas)
    with found.timed("memorisation"):
        memorised = memorisation_figures(
            torch.from_numpy(images.samples[0]).to(device),
            torch.from_numpy(test.images).to(device),
            torch.from_numpy(reconstructions).to(device),
            splits.train.images,
            _decode(pipeline.vqvae, dump.splits["train"], device),
        )
    found.notes += memorised.alarms
    return Evaluation(
        run=directory.path.resolve().name,
        settings=recorded_settings(directory, settings)
        | {"feature_networks": {network.name: network.hash for network in networks}},
        figures=_by_group((*found.figures, *memorised.figures, *of_prior)),
        notes=tuple(found.notes),
        seconds=found.seconds,
        environment=environment(device),
    )


def recorded_settings(directory: RunDirectory, settings: EvaluationSettings) -> dict[str, object]:
    """What two evaluations must agree in to be the same: options, models and data."""
    import json

    from stage1_vqvae.artifact import CONFIG_FILE

    def weights(path: Path) -> str:
        hash_ = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))["weights_sha256"]
        return str(hash_)[:16]

    return {
        **settings.to_dict(),
        "data_fingerprint": directory.data()["fingerprint"],
        "vqvae": weights(directory.vqvae),
        "prior": weights(directory.prior),
    }


def _networks(
    run: Path,
    splits: DataSplits,
    real: ImageSet,
    device: torch.device,
    precision: Precision,
    found: _Findings,
    *,
    download: bool,
) -> list[FeatureNetwork]:
    """The feature spaces there are; a note says why one is missing."""
    networks = []
    if splits.num_classes and real.labels is not None:
        with found.timed("feature classifier"):
            classifier, key = cached_classifier(
                run.resolve().parent / FEATURE_NETWORKS,
                real.images,
                real.labels,
                splits.num_classes,
                fingerprint=splits.fingerprint,
                device=device,
                precision=precision,
            )
            assert splits.test.labels is not None
            accuracy = classifier.accuracy(splits.test.images, splits.test.labels)
        found.notes.append(
            f"FD-classifier and KD-classifier are measured in {NUM_FEATURES} features of "
            f"classifier {key}, which was trained on the data's own labels and is right on "
            f"{accuracy:.1%} of the test images; they compare runs on the same data and are no FID"
        )
        networks.append(classifier_network(classifier, key))
    else:
        found.notes.append(
            "the data have no labels, so there is neither a feature classifier nor a "
            "classification accuracy score"
        )
    if splits.image_shape[0] not in (1, 3):
        found.notes.append("FID needs gray or RGB images, so it was not measured")
        return networks
    weights = inception_weights(download=download)
    if weights is None:
        found.notes.append(
            "Inception v3's weights are not in torch's cache, so FID was not measured: add "
            "--download-inception to fetch them (104 MB)"
        )
        return networks
    return [*networks, inception_network(weights, device)]


def _note_few_images(found: _Findings, side: int, networks: list[FeatureNetwork]) -> None:
    if networks and side <= NUM_NEIGHBOURS:
        found.notes.append(
            f"precision, recall, density and coverage need more than {NUM_NEIGHBOURS} images a "
            f"side, got {side}, so they were not measured"
        )
    if networks and side < 10 * NUM_FEATURES:
        found.notes.append(
            f"{side:,} images a side are few for {NUM_FEATURES} features: Frechet distances are "
            "too high, and only to be compared with those of as many images"
        )


def _draw(
    pipeline: GenerationPipeline,
    settings: EvaluationSettings,
    real: ImageSet,
    total: int,
    batch_size: int,
) -> ImageSet:
    """Samples whose classes are as frequent as those of the real images."""
    labels = None
    if real.labels is not None and pipeline.prior.num_classes is not None:
        labels = np.resize(real.labels[_order(len(real))], total)
    images = pipeline(
        total,
        None if labels is None else torch.from_numpy(labels),
        settings=settings.settings,
        seed=settings.seed,
        batch_size=batch_size,
    )
    return ImageSet(images.numpy(), labels)


def _reconstruct(model: VQVAE, images: ImageSet, device: torch.device) -> NDArray[np.uint8]:
    batches = [model.decode(model.encode(b)).cpu() for b in image_batches(images, device)]
    reconstructed: NDArray[np.uint8] = torch.cat(batches).numpy()
    return reconstructed


def _decode(model: VQVAE, split: SplitCodes, device: torch.device) -> NDArray[np.uint8]:
    decoded = [
        model.decode(tuple(grid.to(device) for grid in codes)).cpu()
        for codes, _ in code_batches(split)
    ]
    images: NDArray[np.uint8] = torch.cat(decoded).numpy()
    return images


def _sets(images: NDArray[np.uint8], size: int) -> tuple[NDArray[np.uint8], ...]:
    """Disjoint sets of `size` images; what is left over is not used."""
    count = min(len(images) // size, _MAX_SETS)
    return tuple(images[i * size : (i + 1) * size] for i in range(count))


def _joined(first: ImageSet, second: ImageSet) -> ImageSet:
    labels = None
    if first.labels is not None and second.labels is not None:
        labels = np.concatenate([first.labels, second.labels])
    return ImageSet(np.concatenate([first.images, second.images]), labels)


def _order(count: int) -> NDArray[np.int64]:
    order: NDArray[np.int64] = np.random.default_rng(0).permutation(count)
    return order


def _by_group(figures: tuple[Figure, ...]) -> tuple[Figure, ...]:
    order = ("reconstruction", "generation", "memorisation", "prior")
    return tuple(sorted(figures, key=lambda figure: order.index(figure.group)))
