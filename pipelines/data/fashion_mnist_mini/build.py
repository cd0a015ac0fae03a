"""Builds the embedded image set: `python -m pipelines.data.fashion_mnist_mini.build SOURCE`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.data.idx import read_labelled_idx
from pipelines.data.image_set import ImageSet

NUM_CLASSES = 10
TRAIN_PER_CLASS = 1000
TEST_PER_CLASS = 200
FILE_NAME = "fashion_mnist_mini.npz"


def first_of_each_class(labels: NDArray[np.int64], per_class: int) -> NDArray[np.int64]:
    """Gives the places of the first `per_class` labels of each class, in the order of the set.

    The sets come shuffled, so the first ones are as good a sample as any and need no seed.

    Args:
        labels: int64 (N,), in [0, 10).
        per_class: how many of each class, at least 1.

    Returns:
        int64 (10 * per_class,), increasing.

    Raises:
        ValueError: a class has fewer labels.
    """
    counts = np.bincount(labels, minlength=NUM_CLASSES)
    if counts.min() < per_class:
        raise ValueError(
            f"at least {per_class} images of each class are required, got {counts.min()} of class "
            f"{counts.argmin()}: use the full Fashion-MNIST"
        )
    rank_in_class = np.empty(len(labels), np.int64)
    for label in range(NUM_CLASSES):
        rank_in_class[labels == label] = np.arange(counts[label])
    return np.flatnonzero(rank_in_class < per_class)


def build(
    source: Path,
    target: Path,
    *,
    train_per_class: int = TRAIN_PER_CLASS,
    test_per_class: int = TEST_PER_CLASS,
) -> None:
    """Writes the balanced part of the Fashion-MNIST in `source` to `target`.

    Args:
        source: folder of the four gzipped IDX files.
        target: the npz file to write: `images`, `labels`, `test_images`, `test_labels`, all uint8.
        train_per_class: training images of each class.
        test_per_class: test images of each class.

    Raises:
        FileNotFoundError: an IDX file is missing.
        ValueError: an IDX file is broken, or a class has too few images.
    """
    train, test = (
        read_labelled_idx(
            source / f"{prefix}-images-idx3-ubyte.gz",
            source / f"{prefix}-labels-idx1-ubyte.gz",
            NUM_CLASSES,
        )
        for prefix in ("train", "t10k")
    )
    images, labels = _balanced(train, train_per_class)
    test_images, test_labels = _balanced(test, test_per_class)
    np.savez_compressed(
        target, images=images, labels=labels, test_images=test_images, test_labels=test_labels
    )


def _balanced(images: ImageSet, per_class: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    assert images.labels is not None
    part = images.take(first_of_each_class(images.labels, per_class))
    assert part.labels is not None
    return part.images[:, 0], part.labels.astype(np.uint8)


def main() -> None:
    """Reads the source folder from the command line and writes the npz file beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder of the four gzipped Fashion-MNIST files")
    build(parser.parse_args().source, Path(__file__).with_name(FILE_NAME))


if __name__ == "__main__":
    main()
