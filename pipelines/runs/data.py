"""The images of a run: those it was trained on, or a user's own for its models."""

from __future__ import annotations

from pathlib import Path

from pipelines.data.folder import read_images
from pipelines.data.image_set import DataSplits, ImageSet
from pipelines.data.load import load_splits
from pipelines.data.location import DataLocation
from pipelines.files.names import printable
from pipelines.runs.directory import RunDirectory


def load_run_splits(directory: RunDirectory, location: DataLocation | None = None) -> DataSplits:
    """The data a run was trained on.

    Args:
        directory: The run.
        location: Where the data are now; None looks where they were in training.

    Raises:
        FileNotFoundError: There are no data.
        ValueError: The data are others.
    """
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


def images_to_show(
    directory: RunDirectory,
    image_shape: tuple[int, int, int],
    split: str,
    path: Path | None,
    location: DataLocation | None = None,
) -> tuple[ImageSet, str]:
    """A split of a run's data, or a user's own files where there is a `path`.

    Args:
        directory: The run.
        image_shape: (C, H, W) that it was trained on; files are brought to it.
        split: train, validation or test; not looked at where there is a path.
        path: An image file or a folder of them, or None.
        location: Where the run's data are now; see `load_run_splits`.

    Returns:
        The images, and what they are in words.

    Raises:
        ValueError: Files cannot have so many channels, or cannot be read, or the run's data are no
            longer those.
        FileNotFoundError: There is no run or no such path.
    """
    if path is None:
        images = load_run_splits(directory, location).by_name[split]
        return images, f"the {split} split"
    if image_shape[0] not in (1, 3):
        raise ValueError(
            f"image files have 1 or 3 channels, but the run was trained on {image_shape[0]}: "
            "leave --images out and name a --split"
        )
    images, notes = read_images(path, image_shape)
    return images, "; ".join((printable(path), *notes))
