"""Images with labels in memory, and the three splits of a run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_HASHED_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one shape, with or without labels.

    Raises:
        TypeError: `images` are not uint8 or `labels` are not int64.
        ValueError: `images` are not (N, C, H, W), or `labels` are not (N,).
    """

    images: NDArray[np.uint8]
    """uint8 (N, C, H, W); a `np.memmap` if they do not fit into memory."""
    labels: NDArray[np.int64] | None = None
    """int64 (N,), or None for a set without classes."""

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8:
            raise TypeError(f"images must be uint8, got {self.images.dtype}: convert them first")
        if self.images.ndim != 4:
            raise ValueError(
                f"images must be (N, C, H, W), got shape {self.images.shape}: add the missing axis"
            )
        if self.labels is None:
            return
        if self.labels.dtype != np.int64:
            raise TypeError(f"labels must be int64, got {self.labels.dtype}: convert them first")
        if self.labels.shape != (len(self),):
            raise ValueError(
                f"labels must be one per image, ({len(self)},), got shape {self.labels.shape}: "
                "labels and images do not belong together"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def take(self, indices: NDArray[np.int64]) -> ImageSet:
        """Returns the images at `indices`, int64 (M,), in that order, copied into memory."""
        labels = None if self.labels is None else self.labels[indices]
        return ImageSet(self.images[indices], labels)

    def update_hash(self, digest: Any) -> None:
        """Feeds shape, labels and pixels to `digest`, an object of `hashlib`.

        Above `MAX_HASHED_BYTES` only evenly spaced images are read: a set too large for memory
        would be read from disk twice.
        """
        digest.update(repr((self.images.shape, self.labels is not None)).encode())
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels, dtype="<i8"))
        step = max(1, -(-self.images.nbytes // MAX_HASHED_BYTES))
        for image in np.array_split(self.images[::step], max(1, len(self) // (step * 1024))):
            digest.update(np.ascontiguousarray(image))


@dataclass(frozen=True, eq=False)
class DataSplits:
    """The three splits of an image set.

    Raises:
        ValueError: A split is empty, the splits differ in image shape, or a label has no class.
    """

    train: ImageSet
    """Trains the models."""
    validation: ImageSet
    """Decides early stopping, best weights and settings."""
    test: ImageSet
    """Is only reported, never decides anything."""
    class_names: tuple[str, ...] = ()
    """Name of each label's class, by label; empty without labels."""
    skipped: int = 0
    """Number of broken files that were left out."""
    notes: tuple[str, ...] = ()
    """Interpretation of the source and skipped files, in sentences."""

    def __post_init__(self) -> None:
        for name, images in self.by_name.items():
            if len(images) == 0:
                raise ValueError(
                    f"the {name} split must hold at least one image, got none: add images"
                )
            if images.image_shape != self.image_shape:
                raise ValueError(
                    f"all splits must hold images of one shape (C, H, W), got {self.image_shape} "
                    f"in train and {images.image_shape} in {name}: set data.image_size and "
                    "data.channels"
                )
            if (images.labels is None) != (not self.class_names):
                raise ValueError(
                    "either all splits have labels and their classes have names, or none does, "
                    f"got {len(self.class_names)} class names and the {name} split "
                    f"{'without' if images.labels is None else 'with'} labels"
                )
            if images.labels is not None and not (
                images.labels.min() >= 0 and images.labels.max() < len(self.class_names)
            ):
                raise ValueError(
                    f"labels must be in [0, {len(self.class_names)}), got {images.labels.min()} to "
                    f"{images.labels.max()} in the {name} split: the labels belong to other classes"
                )

    @property
    def by_name(self) -> dict[str, ImageSet]:
        """The splits by name, in the order train, validation, test."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image of every split."""
        return self.train.image_shape

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None without labels."""
        return len(self.class_names) or None

    @property
    def train_images_per_class(self) -> tuple[int, ...]:
        """Number of training images of each class, by label; empty without labels."""
        if self.train.labels is None:
            return ()
        counts = np.bincount(self.train.labels, minlength=len(self.class_names))
        return tuple(counts.tolist())

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when any image, label, class or the split changes.

        Computed once; about 0.1 s for 60,000 images of 28x28. In a split above
        `MAX_HASHED_BYTES` only evenly spaced images count.
        """
        digest = hashlib.blake2b(repr(self.class_names).encode(), digest_size=8)
        for images in self.by_name.values():
            images.update_hash(digest)
        return digest.hexdigest()
