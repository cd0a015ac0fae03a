"""Record of a run's data, to recognise them later. Imports no numpy, so that `--help` is fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.data.image_set import DataSplits


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSizes:
    """Number of images in each split."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRecord:
    """Shape, sizes, classes and fingerprint of the three splits.

    Raises:
        ValueError: A size is below 1, or `num_classes` is not the number of names.
    """

    image_shape: tuple[int, int, int]
    """(C, H, W)."""
    num_images: SplitSizes
    """Number of images in each split."""
    num_classes: int | None
    """None without labels."""
    class_names: tuple[str, ...]
    """By label; empty without labels."""
    train_images_per_class: tuple[int, ...]
    """Sizes of the classes in the training split, by label; empty without labels."""
    fingerprint: str
    """16 hexadecimal digits that change when any image, label, class or the split changes."""

    def __post_init__(self) -> None:
        sizes = self.num_images
        if min(*self.image_shape, sizes.train, sizes.validation, sizes.test) < 1:
            raise ValueError(
                f"images and splits must have sizes of at least 1, got {self.image_shape} and "
                f"{sizes}"
            )
        if self.num_classes != (len(self.class_names) or None):
            raise ValueError(
                f"num_classes must be the number of class_names or null without any, got "
                f"{self.num_classes} and {len(self.class_names)} names"
            )
        counts = self.train_images_per_class
        if len(counts) != len(self.class_names) or min(counts, default=0) < 0:
            raise ValueError(
                f"train_images_per_class must be a size of at least 0 for each of the "
                f"{len(self.class_names)} classes, got {counts}"
            )


def data_record(splits: DataSplits) -> DataRecord:
    """Returns the record of these splits."""
    return DataRecord(
        image_shape=splits.image_shape,
        num_images=SplitSizes(**{name: len(images) for name, images in splits.by_name.items()}),
        num_classes=splits.num_classes,
        class_names=splits.class_names,
        train_images_per_class=splits.train_images_per_class,
        fingerprint=splits.fingerprint,
    )
