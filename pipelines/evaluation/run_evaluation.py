"""Everything that is measured of a finished run, put together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from pipelines.evaluation.feature_classifier import (
    NUM_FEATURES,
    cached_classifier,
    cached_key,
)
from pipelines.evaluation.feature_neighbours import NUM_NEIGHBOURS
from pipelines.evaluation.feature_networks import (
    FeatureNetwork,
    classifier_network,
    expected_inception_hash,
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
from stage1_vqvae.code_dump import CodeDump, SplitCodes
from stage1_vqvae.model import VQVAE
from stage2_prior.request import decide_compilation

FEATURE_NETWORKS = ".feature-networks"
_INCEPTION_CHANNELS = (1, 3)
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


@dataclass(frozen=True)
class _Measured:
    """The run that is measured, where, and on how many images."""

    path: Path
    splits: DataSplits
    real: ImageSet
    """Training and validation images."""
    pipeline: GenerationPipeline
    dump: CodeDump
    device: torch.device
    precision: Precision
    side: int
    """Images on each side of a distance."""
    num_cas: int
    """Samples for the classification accuracy score; 0 without labels."""

    @property
    def num_samples(self) -> int:
        """Samples that are drawn."""
        return max(self.num_cas, _MIN_SETS * self.side)


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
    run = _load(directory, settings, device)
    settings = _decided(settings, run)
    found = _Findings()
    with found.timed("prior"):
        of_prior = prior_figures(run.pipeline.prior, run.dump, run.splits.image_shape[1:])
    with found.timed("reconstruction"):
        (bits,) = (figure.value for figure in of_prior if figure.name == "bits_per_image")
        found.figures += reconstruction_figures(run.pipeline.vqvae, run.splits.test, bits, device)
        test = _first(run.splits.test, run.side)
        reconstructions = _reconstruct(run.pipeline.vqvae, test, device)
    with found.timed("samples"):
        samples = _draw(run, settings, batch_size)
    images = ComparedImages(
        test=test.images,
        reconstructions=reconstructions,
        train=_sets(run.real.images[_order(len(run.real))[: _MAX_SETS * run.side]], run.side),
        samples=_sets(samples.images, run.side),
    )
    networks = _networks(run, found, download=download_inception)
    _measure_distances(run, images, networks, found)
    if run.num_cas:
        _measure_accuracy(run, samples, settings, found)
    with found.timed("memorisation"):
        memorised = memorisation_figures(
            torch.from_numpy(images.samples[0]).to(device),
            torch.from_numpy(test.images.copy()).to(device),
            torch.from_numpy(reconstructions).to(device),
            run.splits.train.images,
            _decode(run.pipeline.vqvae, run.dump.splits["train"], device),
        )
    return Evaluation(
        run=directory.path.resolve().name,
        settings=recorded_settings(directory, settings)
        | {"feature_networks": {network.name: network.hash for network in networks}},
        figures=_by_group((*found.figures, *memorised.figures, *of_prior)),
        notes=tuple(found.notes),
        alarms=memorised.alarms,
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


def expected_networks(directory: RunDirectory, *, download_inception: bool) -> dict[str, str]:
    """Name and hash of the feature networks that an evaluation would use, as it records them.

    A classifier that is still to be trained is missing, since nobody can know its weights.
    """
    data = directory.data()
    channels, num_classes = data["image_shape"][0], data["num_classes"]
    hashes = {}
    if num_classes:
        hashes["classifier"] = cached_key(
            _networks_folder(directory.path),
            fingerprint=data["fingerprint"],
            channels=channels,
            num_classes=num_classes,
        )
    if channels in _INCEPTION_CHANNELS:
        hashes["inception"] = expected_inception_hash(download=download_inception)
    return {name: hash_ for name, hash_ in hashes.items() if hash_ is not None}


def _load(directory: RunDirectory, settings: EvaluationSettings, device: torch.device) -> _Measured:
    """Reads what is measured.

    Raises:
        FileNotFoundError: A part of the run is missing.
        ValueError: It is damaged, its data have changed, or there are too few images.
    """
    splits = load_run_splits(directory.config(), directory)
    pipeline = GenerationPipeline.from_pretrained(directory.path)
    dump = read_own_codes(directory, pipeline.vqvae)
    real = _joined(splits.train, splits.validation)
    side = min(settings.side, len(splits.test), len(real))
    if side < 2:
        raise ValueError(
            f"an evaluation compares at least 2 test images, but the test split of "
            f"{directory.path} has {len(splits.test)}: train on more images"
        )
    return _Measured(
        path=directory.path,
        splits=splits,
        real=real,
        pipeline=pipeline.to(device),
        dump=dump,
        device=device,
        precision=resolve_precision("auto", device),
        side=side,
        num_cas=settings.num_cas_samples(len(real)) if splits.num_classes else 0,
    )


def _decided(settings: EvaluationSettings, run: _Measured) -> EvaluationSettings:
    """The settings with `compile` on or off, as the prior decides it, for the record."""
    prior = run.pipeline.prior
    num_draws = run.num_samples * prior.num_codes
    sampling = decide_compilation(
        settings.settings, num_draws, run.device, possible=prior.has_sampler_options
    )
    return replace(settings, settings=sampling)


def _networks(run: _Measured, found: _Findings, *, download: bool) -> list[FeatureNetwork]:
    """The feature spaces there are; a note says why one is missing."""
    splits, real, networks = run.splits, run.real, []
    if splits.num_classes and real.labels is not None:
        with found.timed("feature classifier"):
            classifier, key = cached_classifier(
                _networks_folder(run.path),
                real.images,
                real.labels,
                splits.num_classes,
                fingerprint=splits.fingerprint,
                device=run.device,
                precision=run.precision,
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
    if splits.image_shape[0] not in _INCEPTION_CHANNELS:
        found.notes.append("FID needs gray or RGB images, so it was not measured")
        return networks
    weights = inception_weights(download=download)
    if weights is None:
        found.notes.append(
            "Inception v3's weights are not in torch's cache, so FID was not measured: add "
            "--download-inception to fetch them (104 MB)"
        )
        return networks
    return [*networks, inception_network(weights, run.device)]


def _networks_folder(run: Path) -> Path:
    """Where the classifiers of all runs beside this one are kept."""
    return run.resolve().parent / FEATURE_NETWORKS


def _measure_distances(
    run: _Measured, images: ComparedImages, networks: list[FeatureNetwork], found: _Findings
) -> None:
    for network in networks:
        with found.timed(f"distances ({network.name})"):
            slow = network.name == "inception" and run.device.type == "cpu"
            found.figures += distance_figures(
                network,
                images,
                max_sets=1 if slow else _MAX_SETS,
                max_neighbour_sets=1 if slow else _MAX_NEIGHBOUR_SETS,
            )
        if run.side < 10 * network.num_features:
            found.notes.append(
                f"{run.side:,} images a side are few for {network.num_features:,} features: "
                f"{network.frechet} is too high, and only to be compared with that of as many "
                "images"
            )
    if networks and run.side <= NUM_NEIGHBOURS:
        found.notes.append(
            f"precision, recall, density and coverage need more than {NUM_NEIGHBOURS} images a "
            f"side, got {run.side}, so they were not measured"
        )


def _measure_accuracy(
    run: _Measured, samples: ImageSet, settings: EvaluationSettings, found: _Findings
) -> None:
    assert run.splits.num_classes is not None, "samples are drawn for it only where there are some"
    with found.timed("classification accuracy"):
        accuracy = classification_accuracy(
            _first(samples, run.num_cas),
            run.real,
            run.splits.test,
            run.splits.num_classes,
            seeds=settings.seeds,
            device=run.device,
            precision=run.precision,
        )
    found.figures += accuracy_figures(accuracy, run.num_cas)


def _draw(run: _Measured, settings: EvaluationSettings, batch_size: int) -> ImageSet:
    """Samples whose classes are as frequent as those of the real images."""
    labels = None
    if run.real.labels is not None and run.pipeline.prior.num_classes is not None:
        labels = np.resize(run.real.labels[_order(len(run.real))], run.num_samples)
    images = run.pipeline(
        run.num_samples,
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


def _first(images: ImageSet, count: int) -> ImageSet:
    """The first images of a set, without a copy of them."""
    return ImageSet(images.images[:count], None if images.labels is None else images.labels[:count])


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
