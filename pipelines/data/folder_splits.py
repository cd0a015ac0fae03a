"""Interpretation of sub-folders: splits, classes, or a mere wrapping."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.data.folder_tree import FileList, find_images
from pipelines.data.splitting import GivenSplits
from pipelines.files.names import listed, printable, unicode_name

SPLITS = ("train", "validation", "test")
# Such as train, Training, training_set, images-train, train2017, trainval; val, Valid, dev; TEST.
SPLIT_NAME = re.compile(
    r"(?:(?:images?|imgs?)[ _-])?"
    r"(?:(?P<train>train(?:ing|val)?)|(?P<validation>val(?:id(?:ation)?)?|dev)|(?P<test>test(?:ing)?))"
    r"(?:[ _-]?(?:set|data|images?|imgs?|split|\d{4}))?",
    re.IGNORECASE,
)


def split_named(folder_name: str) -> str | None:
    """Returns train, validation or test where a folder's name usually means it, else None."""
    match = SPLIT_NAME.fullmatch(folder_name)
    return match and match.lastgroup


def read_tree(
    folder: Path, *, with_labels: bool, skip_broken: bool = False
) -> GivenSplits[FileList]:
    """Lists the image files below `folder`, with splits and classes from its sub-folders.

    - Folders that only wrap another one are skipped.
    - Sub-folders named train, val and test, or usual variants of these, are the splits, and each
      is read as below.
    - Images in sub-folders have the name of the first sub-folder as their class; deeper levels
      are ignored. Classes are numbered in the order of their names.
    - Images that all lie directly in the folder have no labels.

    Dangling links are refused, or skipped with `skip_broken`.
    """
    paths, notes = find_images(folder, skip_broken=skip_broken)
    base = _unwrapped(folder, paths)
    folders = _split_folders(base, paths)
    if not folders:
        classes = _classes(base, paths) if with_labels else ()
        return GivenSplits(_file_list(base, paths, classes), class_names=classes, notes=notes)
    parts = {name: [path for path in paths if top in path.parents] for name, top in folders.items()}
    train = _unwrapped(folders["train"], parts["train"])
    classes = _classes(train, parts["train"]) if with_labels else ()
    files = {
        name: _file_list(_unwrapped(top, parts[name], classes), parts[name], classes)
        for name, top in folders.items()
        if name != "train"
    }
    found = (f"{name} is {printable(top.relative_to(folder))}/" for name, top in folders.items())
    return GivenSplits(
        _file_list(train, parts["train"], classes),
        files.get("validation"),
        files.get("test"),
        classes,
        (f"splits: {', '.join(found)}", *notes),
    )


def _unwrapped(folder: Path, paths: Sequence[Path], classes: Sequence[str] = ()) -> Path:
    """Returns the first folder, from `folder` inwards, that is not a mere wrapping.

    A single folder of images that lie directly in it is a class. So is one named in `classes`.
    """
    while True:
        inner = {path.relative_to(folder).parts[:-1][:1] for path in paths}
        if len(inner) != 1 or () in inner:
            return folder
        ((name,),) = inner
        same_split = split_named(name) is not None and split_named(name) == split_named(folder.name)
        holds_images = any(path.parent == folder / name for path in paths)
        if not same_split and (holds_images or split_named(name) or unicode_name(name) in classes):
            return folder
        folder = folder / name


def _split_folders(folder: Path, paths: Sequence[Path]) -> dict[str, Path]:
    """Returns the folder of each split, {} if no sub-folder is named like one."""
    parts = [path.relative_to(folder).parts for path in paths]
    inner = sorted({first for first, *rest in parts if rest})
    found = [(name, split) for name in inner if (split := split_named(name))]
    if not found:
        _refuse_splits_of_classes(folder, parts)
        return {}
    by_name, by_split = dict(found), {split: name for name, split in found}
    others = [f"{name}/" for name in inner if name not in by_name]
    others += [first for first, *rest in parts if not rest]
    if others:
        raise ValueError(
            f"{printable(folder)} must hold either splits or classes, but "
            f"{listed(f'{name}/' for name in by_name)} {'is' if len(by_name) == 1 else 'are'} "
            f"named like splits and {listed(others, 3)} {'is' if len(others) == 1 else 'are'} "
            "not: move the rest elsewhere, or rename what is no split"
        )
    for name, split in found:
        if by_split[split] != name:
            raise ValueError(
                f"{printable(folder)} must have one {split} folder, got {printable(name)} and "
                f"{printable(by_split[split])}: merge them"
            )
    if "train" not in by_split:
        raise ValueError(
            f"{printable(folder)} must have a train folder next to {listed(by_name)}: add it, or "
            "rename what is no split"
        )
    return {split: folder / by_split[split] for split in SPLITS if split in by_split}


def _refuse_splits_of_classes(folder: Path, parts: Sequence[tuple[str, ...]]) -> None:
    """Refuses splits one level too deep: they would be merged into classes."""
    below = {(part[0], part[1]) for part in parts if len(part) > 2 and split_named(part[1])}
    for first in sorted({first for first, _ in below}):
        splits = sorted(second for top, second in below if top == first)
        if len({split_named(name) for name in splits}) > 1:
            raise ValueError(
                f"{printable(folder)} must hold splits or classes, but {printable(first)}/ in it "
                f"holds {listed(splits)}: name the folder that holds the splits, or put the "
                "classes into the splits"
            )


def _classes(folder: Path, paths: Sequence[Path]) -> tuple[str, ...]:
    """Returns the sorted names of the first-level sub-folders, () if all files are at the top."""
    parts = [path.relative_to(folder).parts for path in paths]
    names = sorted({unicode_name(first) for first, *rest in parts if rest})
    loose = [first for first, *rest in parts if not rest]
    if names and loose:
        raise ValueError(
            f"{printable(folder)} must hold its images either all in one sub-folder per class or "
            f"all directly, got {printable(loose[0])} next to {printable(names[0])}/: move the "
            f"{len(loose)} loose images, or ignore the classes with --data.no-labels"
        )
    return tuple(names)


def _file_list(folder: Path, paths: Sequence[Path], classes: tuple[str, ...]) -> FileList:
    if not classes:
        return FileList(tuple(paths), None)
    label_of = {name: label for label, name in enumerate(classes)}
    labels = []
    for path in paths:
        first, *rest = path.relative_to(folder).parts
        label = label_of.get(unicode_name(first)) if rest else None
        if label is None:
            raise ValueError(
                f"{printable(path)} must lie in a sub-folder named after a class of train "
                f"({listed(classes, 3)}): move it, or ignore the classes with --data.no-labels"
            )
        labels.append(label)
    return FileList(tuple(paths), np.array(labels, np.int64))
