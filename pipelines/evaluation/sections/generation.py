"""How near generated images come to real ones, as metrics with their floor beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipelines.evaluation.metrics.classification_accuracy import ClassificationAccuracy
from pipelines.evaluation.metrics.feature_networks import FeatureNetwork
from pipelines.evaluation.metrics.frechet import (
    MAX_SUBSET,
    frechet_distance,
    kernel_distance,
)
from pipelines.evaluation.metrics.precision_recall import (
    NUM_NEIGHBOURS,
    PrecisionRecall,
    neighbour_radii,
    precision_recall,
)
from pipelines.evaluation.record import Metric, Reference

FLOOR, RECONSTRUCTIONS = "train against test", "reconstructions against test"


@dataclass(frozen=True)
class ComparedImages:
    """Sets of equally many images, uint8 (N, C, H, W) each."""

    test: NDArray[np.uint8]
    """What all others are compared with."""
    reconstructions: NDArray[np.uint8]
    """Of `test`."""
    train: tuple[NDArray[np.uint8], ...]
    """Disjoint sets of training and validation images."""
    samples: tuple[NDArray[np.uint8], ...]
    """Disjoint sets of samples."""


def distance_metrics(
    network: FeatureNetwork, images: ComparedImages, *, max_sets: int, max_neighbour_sets: int
) -> tuple[Metric, ...]:
    """Frechet and kernel distance, precision, recall, density and coverage in one feature space.

    Args:
        network: Gives the features.
        images: The sets.
        max_sets: Use at most so many sets of samples and of training images.
        max_neighbour_sets: The same for the last four metrics, which take longer.
    """
    test = network.features(images.test)
    compared = _Compared(
        network=network,
        num_images=len(images.test),
        reconstructions=network.features(images.reconstructions),
        train=[network.features(part) for part in images.train[:max_sets]],
        samples=[network.features(part) for part in images.samples[:max_sets]],
    )
    frechet = compared.measure(lambda part: frechet_distance(test, part))
    kernel = compared.measure(lambda part: kernel_distance(test, part).mean)
    kernel_std, of_subsets = kernel.std, ""
    if kernel_std is None and compared.num_images > MAX_SUBSET:
        kernel_std = kernel_distance(test, compared.samples[0]).std
        of_subsets = f" Its std is over random subsets of {MAX_SUBSET:,} images of one set."
    seen = ", which the classifier has learned from" if network.name == "classifier" else ""
    short = network.frechet.lower().replace("-", "_"), network.kernel.lower().replace("-", "_")
    metrics = [
        compared.metric(
            frechet,
            name=short[0],
            label=network.frechet,
            better="lower",
            std=frechet.std,
            explanation=f"Frechet distance of samples from test images to {network.label}; the "
            f"floor ({FLOOR}) is that of training and validation images{seen}.",
        ),
        compared.metric(
            kernel,
            name=short[1],
            label=network.kernel,
            better="lower",
            std=kernel_std,
            explanation="Kernel distance in the same features; its mean does not depend on the "
            f"number of images.{of_subsets}",
        ),
        Metric(
            group="reconstruction",
            name=f"r{short[0]}",
            label=f"r{network.frechet}",
            value=frechet.reconstructions,
            better="lower",
            explanation="Frechet distance of reconstructions from these very test images: what "
            "stage one alone costs, without the floor's chance of drawing other images.",
            num_images=compared.num_images,
            references=(Reference(label=FLOOR, value=frechet.train),),
        ),
    ]
    if compared.num_images > NUM_NEIGHBOURS:
        metrics += _neighbours(compared, test, max_neighbour_sets)
    return tuple(metrics)


def accuracy_metrics(measured: ClassificationAccuracy, num_images: int) -> tuple[Metric, ...]:
    """The classification accuracy score, and its ratio to that of real images."""
    generated, real = np.array(measured.generated), np.array(measured.real)
    several = len(generated) > 1
    return (
        Metric(
            group="generation",
            name="classification_accuracy",
            label="Classification accuracy score",
            value=100 * float(generated.mean()),
            unit="%",
            better="higher",
            explanation="Accuracy on real test images of a classifier that learned from samples "
            "alone.",
            num_images=num_images,
            std=100 * float(generated.std(ddof=1)) if several else None,
            repetitions=len(generated),
            references=(Reference(label="trained on real images", value=100 * float(real.mean())),),
        ),
        Metric(
            group="generation",
            name="classification_accuracy_ratio",
            label="Accuracy of samples / real",
            value=measured.ratio,
            better="higher",
            explanation="The score as a part of what the same classifier reaches with as many real "
            "images.",
            num_images=num_images,
            std=measured.ratio_std,
            repetitions=len(generated),
            references=(Reference(label="real images", value=1.0),),
        ),
    )


@dataclass(frozen=True)
class _Measured:
    """One measure of the samples and of what it is read beside."""

    samples: tuple[float, ...]
    train: float
    train_std: float | None
    reconstructions: float

    @property
    def std(self) -> float | None:
        return _std(self.samples)


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """Features of the sets that are compared with the test images."""

    network: FeatureNetwork
    num_images: int
    reconstructions: Tensor
    train: list[Tensor]
    samples: list[Tensor]

    def measure(self, of: Callable[[Tensor], float]) -> _Measured:
        train = [of(part) for part in self.train]
        return _Measured(
            samples=tuple(of(part) for part in self.samples),
            train=float(np.mean(train)),
            train_std=_std(train),
            reconstructions=of(self.reconstructions),
        )

    def metric(
        self,
        measured: _Measured,
        *,
        better: Literal["higher", "lower", "neither"],
        std: float | None,
        **words: Any,
    ) -> Metric:
        references = [
            Reference(label=FLOOR, value=measured.train),
            Reference(label=RECONSTRUCTIONS, value=measured.reconstructions),
        ]
        if measured.train_std is not None:
            references.append(Reference(label=f"std of {FLOOR}", value=measured.train_std))
        return Metric(
            group="generation",
            value=float(np.mean(measured.samples)),
            better=better,
            num_images=self.num_images,
            std=std,
            repetitions=len(measured.samples),
            references=tuple(references),
            **words,
        )


_NEIGHBOUR_WORDS = {
    "precision": "Part of the samples that lie among test images.",
    "recall": "Part of the test images that lie among samples.",
    "density": "How densely test images surround samples; about 1 for images of their kind.",
    "coverage": "Part of the test images with a sample near by.",
}


def _neighbours(compared: _Compared, test: Tensor, max_sets: int) -> list[Metric]:
    found: dict[int, PrecisionRecall] = {}
    test = test.double()
    radii = neighbour_radii(test, NUM_NEIGHBOURS)  # once for all comparisons

    def figures_of(part: Tensor) -> PrecisionRecall:
        if id(part) not in found:
            found[id(part)] = precision_recall(test, part, real_radii=radii)
        return found[id(part)]

    few = _Compared(
        network=compared.network,
        num_images=compared.num_images,
        reconstructions=compared.reconstructions,
        train=compared.train[:1],
        samples=compared.samples[:max_sets],
    )
    suffix = "" if compared.network.name == "classifier" else f" ({compared.network.name})"
    metrics = []
    for name, words in _NEIGHBOUR_WORDS.items():
        measured = few.measure(lambda part, name=name: getattr(figures_of(part), name))  # type: ignore[misc]
        metrics.append(
            few.metric(
                measured,
                name=f"{name}_{compared.network.name}",
                label=f"{name.capitalize()}{suffix}",
                better="higher",
                std=measured.std,
                explanation=words,
            )
        )
    return metrics


def _std(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
