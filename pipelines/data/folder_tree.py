"""What lies in a folder of images: the files in a fixed order, their classes and splits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.data.splitting import GivenSplits

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
VALIDATION_NAMES = ("val", "valid", "validation")
SPLIT_NAMES = frozenset({"train", "test", *VALIDATION_NAMES})


@dataclass(frozen=True, eq=False)
class FileList:
    """Image files in a fixed order, with their labels where they have any."""

    paths: tuple[Path, ...]
    """The files, (N,)."""

    labels: NDArray[np.int64] | None
    """int64 (N,), or None."""

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: NDArray[np.int64]) -> FileList:
        """Gives the files at `indices`, int64 (M,), in that order."""
        labels = None if self.labels is None else self.labels[indices]
        return FileList(tuple(self.paths[index] for index in indices), labels)


def find_images(folder: Path) -> list[Path]:
    """Gives every image file below `folder`, sorted by its path relative to it.

    Hidden files and folders are left out; links to folders are followed, each folder once.

    Args:
        folder: where to look.

    Returns:
        The files that have an ending of `IMAGE_SUFFIXES`, in upper or lower case.

    Raises:
        FileNotFoundError: there is no such folder.
        NotADirectoryError: it is a file.
        OSError: a folder below it cannot be listed.
        ValueError: it holds no images.
    """
    if not folder.exists():
        raise FileNotFoundError(f"the image folder {folder} does not exist: check the path")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} must be a folder of images, got a file: give a folder")
    paths = sorted(_walk(folder), key=lambda path: path.relative_to(folder).parts)
    if not paths:
        raise ValueError(
            f"{folder} must hold PNG, JPEG or WebP images, got none: check the path and the endings"
        )
    return paths


def _walk(folder: Path) -> Iterator[Path]:
    seen = set()
    for where, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = Path(where).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = Path(where, name)
            if not name.startswith(".") and path.suffix.lower() in IMAGE_SUFFIXES:
                yield path


def _raise(error: OSError) -> None:
    raise error


def read_tree(folder: Path, *, with_labels: bool) -> GivenSplits[FileList]:
    """Gives the image files below `folder` with the splits and classes that its sub-folders tell.

    - Where all images lie in sub-folders named `train` and `test` and/or `val` (`valid`,
      `validation`), these are the splits, and each is read as below.
    - Images in sub-folders have the name of the first sub-folder as their class; deeper levels
      mean nothing.
    - Images that all lie directly in the folder have no labels.

    Args:
        folder: where to look.
        with_labels: False ignores the classes.

    Returns:
        The splits that the folder brings; classes are numbered in the order of their names.

    Raises:
        OSError: the folder is missing or cannot be listed.
        ValueError: there are no images, or images with and without a class.
    """
    paths = find_images(folder)
    top_level = {path.relative_to(folder).parts[0] for path in paths}
    if not ("train" in top_level and len(top_level) > 1 and top_level <= SPLIT_NAMES):
        classes = _classes(folder, paths) if with_labels else ()
        return GivenSplits(_file_list(folder, paths, classes), class_names=classes)
    validation_names = sorted(top_level.intersection(VALIDATION_NAMES))
    if len(validation_names) > 1:
        raise ValueError(
            f"{folder} must have one validation folder, got {' and '.join(validation_names)}: "
            "merge them"
        )
    by_split = {
        name: [path for path in paths if path.relative_to(folder).parts[0] == name]
        for name in top_level
    }
    classes = _classes(folder / "train", by_split["train"]) if with_labels else ()
    splits = {
        name: _file_list(folder / name, split_paths, classes)
        for name, split_paths in by_split.items()
    }
    validation = splits[validation_names[0]] if validation_names else None
    return GivenSplits(splits["train"], validation, splits.get("test"), classes)


def _classes(folder: Path, paths: list[Path]) -> tuple[str, ...]:
    """Gives the sorted names of the first-level sub-folders, () where all files are at the top."""
    parts = [path.relative_to(folder).parts for path in paths]
    names = sorted({first for first, *rest in parts if rest})
    loose = [path for path, (_, *rest) in zip(paths, parts, strict=True) if not rest]
    if names and loose:
        raise ValueError(
            f"{folder} must hold its images either all in one sub-folder per class or all "
            f"directly, got {loose[0].name} beside {names[0]}/: move the {len(loose)} loose "
            "images, or ignore the classes with --data.no-labels"
        )
    return tuple(names)


def _file_list(folder: Path, paths: list[Path], classes: tuple[str, ...]) -> FileList:
    if not classes:
        return FileList(tuple(paths), None)
    label_of = {name: label for label, name in enumerate(classes)}
    labels = []
    for path in paths:
        name, *rest = path.relative_to(folder).parts
        if not rest or name not in label_of:
            raise ValueError(
                f"{path} must lie in a sub-folder named after a class of train "
                f"({', '.join(classes[:3])}, ...): move it, or ignore the classes with "
                "--data.no-labels"
            )
        labels.append(label_of[name])
    return FileList(tuple(paths), np.array(labels, np.int64))
