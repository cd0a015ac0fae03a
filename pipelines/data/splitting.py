"""Cutting a set into training, validation and test, always in the same way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

PERMUTATION_SEED = 20171102  # The day the VQ-VAE paper appeared on arXiv; any constant would do.


class Sliceable(Protocol):
    """Anything that can be cut by index: images in memory, or the list of files they come from."""

    def __len__(self) -> int: ...

    def take(self, indices: NDArray[np.int64]) -> Self:
        """Gives the elements at `indices`, int64 (M,), in that order."""
        ...


S = TypeVar("S", bound=Sliceable)


@dataclass(frozen=True, eq=False)
class GivenSplits(Generic[S]):
    """What a source brings, before anything is carved."""

    train: S
    """Everything that is not in one of the other two."""
    validation: S | None = None
    """The source's own validation split, or None."""
    test: S | None = None
    """The source's own test split, or None."""
    class_names: tuple[str, ...] = ()
    """Name of each label's class, by label; empty where there are no labels."""
    notes: tuple[str, ...] = ()
    """What the source was taken for and what of it was left out, in sentences."""


def fixed_permutation(size: int) -> NDArray[np.int64]:
    """Gives the one permutation of `range(size)` that every split of `size` elements is cut by.

    It does not depend on the run's seed: two runs with different seeds must be judged on the same
    images, and a resumed or second-stage run must never train on what an earlier one validated on.
    It sorts raw 64-bit outputs of PCG64, whose stream NumPy promises to keep; of
    `Generator.permutation` it does not.

    Args:
        size: number of elements, at least 0.

    Returns:
        int64 (size,), a permutation of 0 .. size - 1.
    """
    keys = np.random.PCG64(PERMUTATION_SEED).random_raw(size)
    return np.argsort(keys, kind="stable").astype(np.int64)


def carve(
    indices: NDArray[np.int64], fraction: float, name: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cuts the first `fraction` of `indices` off as the split `name`, at least one element.

    Args:
        indices: int64 (M,), the elements to cut, in fixed order.
        fraction: share of the elements to cut off, in (0, 1).
        name: name of the new split, for the error message.

    Returns:
        What remains, and what was cut off.

    Raises:
        ValueError: nothing would remain.
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
    validation_fraction: float,
    test_fraction: float,
    limit: int | None = None,
) -> tuple[S, S, S]:
    """Gives the three splits; those that the source does not bring are carved from its train.

    Each split comes in the order of the fixed permutation, so that its first n elements are a fair
    sample of it, and a smaller limit gives a subset of a larger one.

    Args:
        given: what the source brings.
        validation_fraction: share in (0, 1) of the training elements to validate on.
        test_fraction: share in (0, 1) of all elements to test on, cut before validation.
        limit: at most so many elements per split; None for all.

    Returns:
        Training, validation and test split, disjoint parts of what came in.

    Raises:
        ValueError: too few elements for each split to have one.
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
        for_train, for_validation = carve(for_train, validation_fraction, "validation")
    else:
        for_validation = fixed_permutation(len(validation))
    return (
        train.take(for_train[:limit]),
        (train if validation is None else validation).take(for_validation[:limit]),
        (train if test is None else test).take(for_test[:limit]),
    )
