"""Builds the embedded image set from Fashion-MNIST: `python build_fashion_mnist_mini.py SOURCE`."""

import sys
from pathlib import Path

import numpy as np

from pipelines.data.idx import read_labelled_idx
from pipelines.data.load import EMBEDDED


def first_of_each_class(labels, per_class):
    """Positions of the first `per_class` labels of each class, in the order of the set.

    The sets come shuffled, so the first ones are as good a sample as any and need no seed.
    """
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:per_class] for c in range(10)]))


def build(source, target, *, train_per_class=1000, test_per_class=200):
    """Writes a balanced part of the four gzipped IDX files in `source` to `target`."""
    arrays = {}
    for prefix, split, per_class in (
        ("", "train", train_per_class),
        ("test_", "t10k", test_per_class),
    ):
        paths = (source / f"{split}-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1"))
        images = read_labelled_idx(*paths, num_classes=10)
        part = images.take(first_of_each_class(images.labels, per_class))
        arrays[f"{prefix}images"] = part.images[:, 0]
        arrays[f"{prefix}labels"] = part.labels.astype(np.uint8)
    np.savez_compressed(target, **arrays)


if __name__ == "__main__":
    build(Path(sys.argv[1]), EMBEDDED)
