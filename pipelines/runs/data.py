"""The images of a run: those it was trained on, or a user's own for its models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.data.folder import read_images
from pipelines.data.form import ImageForm
from pipelines.data.image_set import DataSplits, ImageSet
from pipelines.data.load import load_splits
from pipelines.data.location import DataLocation
from pipelines.files.names import printable
from pipelines.runs.directory import RunDirectory


def load_run_splits(directory: RunDirectory, location: DataLocation | None = None) -> DataSplits:
    """Loads the data a run was trained on, from where they were in training or are now."""
    config = (location or DataLocation()).of(directory.config().data)
    try:
        splits = load_splits(config)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}; if the images of {directory.path} have moved, say where they are with "
            "--data.source"
        ) from error
    recorded = directory.data().fingerprint
    if splits.fingerprint != recorded:
        raise ValueError(
            f"the data of {directory.path} must be those it was trained on (fingerprint "
            f"{recorded}), but {printable(config.source)} holds others ({splits.fingerprint}): "
            "restore them, name where they are with --data.source, or train a new run"
        )
    return splits


@dataclass(frozen=True, eq=False)
class ShownImages:
    """Images to be shown, with what is known of their files."""

    images: ImageSet
    """In the form that the run was trained on."""
    description: str
    """Where they come from, for people."""
    form: ImageForm
    """The form that they were brought to."""
    file_sizes: tuple[tuple[int, int], ...] = ()
    """Height and width of each image in its file; empty for a split."""


def images_to_show(
    directory: RunDirectory,
    image_shape: tuple[int, int, int],
    split: str,
    path: Path | None,
    location: DataLocation | None = None,
) -> ShownImages:
    """Loads a split of a run's data, or the user's own files at `path`.

    Files are brought to `image_shape` (C, H, W), as the images of the run were. Where only the
    models are known, they are cropped, and put on white.
    """
    is_run = path is None or directory.config_file.exists()
    form = directory.config().data.form if is_run else ImageForm()
    form = replace(form, size=image_shape[1:])
    if path is None:
        images = load_run_splits(directory, location).by_name[split]
        return ShownImages(images, f"the {split} split", form)
    if image_shape[0] not in (1, 3):
        raise ValueError(
            f"image files have 1 or 3 channels, but the run was trained on {image_shape[0]}: "
            "leave --images out and name a --split"
        )
    own = read_images(path, image_shape[0], form)
    return ShownImages(own.images, "; ".join((printable(path), *own.notes)), form, own.sizes)
