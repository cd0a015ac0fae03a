"""Metrics of generated images: distances to test images, and accuracy of a classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.metrics.classification_accuracy import ClassificationAccuracy
from pipelines.evaluation.metrics.feature_networks import FeatureNetwork
from pipelines.evaluation.metrics.frechet import MAX_SUBSET, frechet_distance, kernel_distance
from pipelines.evaluation.metrics.precision_recall import (
    NUM_NEIGHBOURS,
    neighbour_radii,
    precision_recall,
)
from pipelines.evaluation.record import Definition, Metric

FLOOR, RECONSTRUCTIONS = "train against test", "reconstructions against test"
T = TypeVar("T")
U = TypeVar("U")

_define = partial(Definition, "generation")
_NEIGHBOURS = {
    "precision": "Part of the samples that lie among test images.",
    "recall": "Part of the test images that lie among samples.",
    "density": "Density of test images around samples; about 1 for equal distributions.",
    "coverage": "Part of the test images with a sample nearby.",
}
_ACCURACY = _define(
    "classification_accuracy",
    "Classification accuracy score",
    "%",
    "higher",
    "Accuracy on real test images of a classifier that was trained on samples.",
)
_ACCURACY_RATIO = _define(
    "classification_accuracy_ratio",
    "Accuracy of samples / real",
    "",
    "higher",
    "The score as a part of the accuracy after training on as many real images.",
)


@dataclass(frozen=True)
class Compared(Generic[T]):
    """Sets of equally many images to compare with test images, or what was computed of each."""

    samples: Sequence[T]
    """Of disjoint sets of samples."""
    train: Sequence[T]
    """Of disjoint sets of training and validation images."""
    reconstructions: T
    """Of the reconstructions of the test images."""

    def map(self, function: Callable[[T], U]) -> Compared[U]:
        """Applies a function to each set."""
        return Compared(
            samples=[function(part) for part in self.samples],
            train=[function(part) for part in self.train],
            reconstructions=function(self.reconstructions),
        )

    def first(self, samples: int, train: int) -> Compared[T]:
        """Keeps at most so many sets."""
        return Compared(self.samples[:samples], self.train[:train], self.reconstructions)


def distance_metrics(
    network: FeatureNetwork,
    test: NDArray[np.uint8],
    images: Compared[NDArray[np.uint8]],
    *,
    max_sets: int,
    max_neighbour_sets: int,
) -> tuple[Metric, ...]:
    """Measures Frechet and kernel distance, precision, recall, density and coverage.

    All images are uint8 (N, C, H, W). At most `max_sets` sets of samples and of training images are
    used, and `max_neighbour_sets` for the last four metrics, which take longer.
    """
    real = network.features(test)
    features = images.first(max_sets, max_sets).map(network.features)
    frechet = features.map(partial(frechet_distance, real))
    kernel = features.map(partial(kernel_distance, real))
    kernel_mean = kernel.map(attrgetter("mean"))
    kernel_std, of_subsets = _std(kernel_mean.samples), ""
    if kernel_std is None and len(test) > MAX_SUBSET:
        kernel_std = kernel.samples[0].std
        of_subsets = f" Its std is over random subsets of {MAX_SUBSET:,} images of one set."
    seen = ", which it was trained on" if network.is_own else ""
    names = [label.lower().replace("-", "_") for label in (network.frechet, network.kernel)]
    frechet_metric = _define(
        names[0],
        network.frechet,
        "",
        "lower",
        f"Frechet distance of samples from test images in features of {network.label}; the floor "
        f"({FLOOR}) is that of training and validation images{seen}.",
    )
    kernel_metric = _define(
        names[1],
        network.kernel,
        "",
        "lower",
        "Kernel distance in the same features; its mean does not depend on the number of images."
        + of_subsets,
    )
    reconstruction_metric = Definition(
        "reconstruction",
        f"r{names[0]}",
        f"r{network.frechet}",
        "",
        "lower",
        "Frechet distance of reconstructions from these very test images: the loss of stage one "
        "alone, without the floor's difference between sets of images.",
    )
    metrics = [
        _against_test(frechet_metric, frechet, len(test), _std(frechet.samples)),
        _against_test(kernel_metric, kernel_mean, len(test), kernel_std),
        reconstruction_metric.measured(
            frechet.reconstructions, len(test), references={FLOOR: float(np.mean(frechet.train))}
        ),
    ]
    if len(test) > NUM_NEIGHBOURS:
        real = real.double()
        radii = neighbour_radii(real, NUM_NEIGHBOURS)  # once for all comparisons
        neighbours = features.first(max_neighbour_sets, 1).map(
            partial(precision_recall, real, real_radii=radii)
        )
        suffix = "" if network.name == "classifier" else f" ({network.name})"
        for name, explanation in _NEIGHBOURS.items():
            values = neighbours.map(attrgetter(name))
            metric = _define(
                f"{name}_{network.name}",
                f"{name.capitalize()}{suffix}",
                "",
                "higher",
                explanation,
            )
            metrics.append(_against_test(metric, values, len(test), _std(values.samples)))
    return tuple(metrics)


def accuracy_metrics(measured: ClassificationAccuracy, num_images: int) -> tuple[Metric, ...]:
    """Returns the classification accuracy score, and its ratio to that of real images."""
    repetitions, std = len(measured.generated), _std(measured.generated)
    return (
        _ACCURACY.measured(
            100 * float(np.mean(measured.generated)),
            num_images,
            std=None if std is None else 100 * std,
            repetitions=repetitions,
            references={"trained on real images": 100 * float(np.mean(measured.real))},
        ),
        _ACCURACY_RATIO.measured(
            measured.ratio,
            num_images,
            std=measured.ratio_std,
            repetitions=repetitions,
            references={"real images": 1.0},
        ),
    )


def _against_test(
    metric: Definition, values: Compared[float], num_images: int, std: float | None
) -> Metric:
    """Returns the mean over the sets of samples, with the values of real images as references."""
    references = {FLOOR: float(np.mean(values.train)), RECONSTRUCTIONS: values.reconstructions}
    train_std = _std(values.train)
    if train_std is not None:
        references[f"std of {FLOOR}"] = train_std
    return metric.measured(
        float(np.mean(values.samples)),
        num_images,
        std=std,
        repetitions=len(values.samples),
        references=references,
    )


def _std(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
