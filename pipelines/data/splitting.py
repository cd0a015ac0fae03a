"""Fixed splits of a set into training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

PERMUTATION_SEED = 20171102  # The day the VQ-VAE paper appeared on arXiv; any constant would do.
_VALIDATION_FRACTION, _FEWEST_VALIDATED, _MOST_VALIDATED = 0.05, 40, 0.2


class Sliceable(Protocol):
    """A sequence that can be indexed by arrays: images in memory, or a list of image files."""

    def __len__(self) -> int: ...

    def take(self, indices: NDArray[np.int64]) -> Self:
        """Returns the elements at `indices`, int64 (M,), in that order."""
        ...


S = TypeVar("S", bound=Sliceable)


@dataclass(frozen=True, eq=False)
class GivenSplits(Generic[S]):
    """The splits of a source, before others are split off."""

    train: S
    """All elements of no other split."""
    validation: S | None = None
    """The source's own validation split, or None."""
    test: S | None = None
    """The source's own test split, or None."""
    class_names: tuple[str, ...] = ()
    """Name of each label's class, by label; empty without labels."""
    notes: tuple[str, ...] = ()
    """Interpretation of the source and skipped files, in sentences."""


def fixed_permutation(size: int) -> NDArray[np.int64]:
    """Returns the fixed permutation of `range(size)` that all splits are made by, int64 (size,).

    It does not depend on the run's seed: two runs with different seeds must be judged on the same
    images, and a resumed or second-stage run must never train on what an earlier one validated on.
    It sorts raw 64-bit outputs of PCG64, whose stream NumPy guarantees to keep, unlike that of
    `Generator.permutation`.
    """
    keys = np.random.PCG64(PERMUTATION_SEED).random_raw(size)
    return np.argsort(keys, kind="stable").astype(np.int64)


def default_validation_fraction(size: int) -> float:
    """Returns the fraction of `size` images to validate on: 5 %, in small sets 40 images.

    Fewer say too little to stop a training by: the standard error of bits per code over two images
    is larger than what an epoch changes. But at most a fifth, since the others train. Sets of at
    least 800 images have 40 in 5 %.
    """
    return max(_VALIDATION_FRACTION, min(_FEWEST_VALIDATED / size, _MOST_VALIDATED))


def carve(
    indices: NDArray[np.int64], fraction: float, name: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits off the first `fraction` of `indices` as the split `name`, at least one element.

    Returns:
        The remaining elements and the new split.

    Raises:
        ValueError: Nothing would remain.
    """
    size = max(1, round(len(indices) * fraction))
    if size >= len(indices):
        raise ValueError(
            f"at least one image must remain for training after {fraction:g} of {len(indices)} "
            f"went to the {name} split: add images or lower data.{name}_fraction"
        )
    return indices[size:], indices[:size]


def split(
    given: GivenSplits[S],
    *,
    validation_fraction: float | None,
    test_fraction: float,
    limit: int | None = None,
) -> tuple[S, S, S]:
    """Makes the three splits; those that the source lacks are split off its training split.

    Each split comes in the order of the fixed permutation, so that its first n elements are a fair
    sample of it, and a smaller limit gives a subset of a larger one. The test split is split off
    before the validation split. None as `validation_fraction` is `default_validation_fraction`.

    Raises:
        ValueError: There are too few elements for each split to have one.
    """
    train, validation, test = given.train, given.validation, given.test
    needed = 1 + (validation is None) + (test is None)
    if len(train) < needed:
        raise ValueError(
            f"at least {needed} images are needed to make the splits, got {len(train)}: add images"
        )
    for_train = fixed_permutation(len(train))
    if test is None:
        for_train, for_test = carve(for_train, test_fraction, "test")
    else:
        for_test = fixed_permutation(len(test))
    if validation is None:
        fraction = validation_fraction or default_validation_fraction(len(for_train))
        for_train, for_validation = carve(for_train, fraction, "validation")
    else:
        for_validation = fixed_permutation(len(validation))
    return (
        train.take(for_train[:limit]),
        (train if validation is None else validation).take(for_validation[:limit]),
        (train if test is None else test).take(for_test[:limit]),
    )
