"""The image files of a folder in a fixed order, and notes on skipped files."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.data.decoding import BrokenImageError, readable_endings
from pipelines.data.outputs import is_output
from pipelines.files.names import counted, listed, printable, tallied, unicode_name

JUNK = frozenset({"__MACOSX", "@eaDir"})  # Added by archives and network disks.
HEIF_ENDINGS = frozenset({".heic", ".heif", ".hif"})


@dataclass(frozen=True, eq=False)
class FileList:
    """Image files in a fixed order, with or without labels."""

    paths: tuple[Path, ...]
    """The files, (N,)."""
    labels: NDArray[np.int64] | None
    """int64 (N,), or None."""

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: NDArray[np.int64]) -> FileList:
        """Returns the files at `indices`, int64 (M,), in that order."""
        labels = None if self.labels is None else self.labels[indices]
        return FileList(tuple(self.paths[index] for index in indices), labels)


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """Skipped files and folders; paths are relative to the root."""

    endings: Counter[str] = field(default_factory=Counter)
    irregular: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)

    def sentences(self) -> tuple[str, ...]:
        by_ending = [tallied(ending, count) for ending, count in self.endings.most_common()]
        groups = (
            (self.endings.total(), "file", "of other endings", by_ending),
            (len(self.irregular), "special file", "with the ending of an image", self.irregular),
            (len(self.dangling), "link", "to nothing", self.dangling),
            (len(self.outputs), "folder", "of trained runs", self.outputs),
            (len(self.repeated), "folder", "linked a second time", self.repeated),
        )
        found = [
            f"{counted(count, noun)} {what} ({listed(names, 5)}) {'is' if count == 1 else 'are'} "
            "left out"
            for count, noun, what, names in groups
            if count
        ]
        if HEIF_ENDINGS.intersection(self.endings):
            found.append("HEIC images are read where the package pillow-heif is installed")
        return tuple(found)


def find_images(folder: Path, *, skip_broken: bool = False) -> tuple[list[Path], tuple[str, ...]]:
    """Lists every image file below `folder`, sorted by relative path, and notes on skipped files.

    Files have an ending of `readable_endings`, in upper or lower case. Hidden files and folders are
    skipped, and so are folders that this software wrote. Links to folders are followed, each folder
    once; dangling links are refused, or skipped with `skip_broken`.

    Raises:
        FileNotFoundError: There is no such folder.
        NotADirectoryError: It is a file.
        BrokenImageError: A link is dangling.
        ValueError: It holds no images.
    """
    name = printable(folder)
    if not folder.exists():
        raise FileNotFoundError(f"the image folder {name} does not exist: check the path")
    if not folder.is_dir():
        raise NotADirectoryError(
            f"{name} must be a folder of images, but it is no folder: name one"
        )
    left_out = _LeftOut()
    paths = sorted(_walk(folder, left_out), key=lambda path: _sort_key(path.relative_to(folder)))
    if left_out.dangling and not skip_broken:
        raise BrokenImageError(
            f"{printable(folder / left_out.dangling[0])} must be a file or a folder, but it is a "
            "link to nothing: restore what it leads to, or remove it"
        )
    notes = left_out.sentences()
    if not paths:
        raise ValueError(
            f"{name} must hold PNG, JPEG, WebP, BMP, TIFF, GIF, PPM or AVIF images, got none"
            f"{''.join(f'; {note}' for note in notes)}: check the path and the endings"
        )
    return paths, notes


def _walk(folder: Path, left_out: _LeftOut) -> Iterator[Path]:
    seen = set()
    for where, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        here = Path(where)
        relative = str(here.relative_to(folder))
        real = here.resolve()
        if real in seen:
            left_out.repeated.append(relative)
            folders.clear()
            continue
        seen.add(real)
        if here != folder and is_output(here):
            left_out.outputs.append(relative)
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in JUNK)
        for name in files:
            if not name.startswith(".") and _is_image(here / name, folder, left_out):
                yield here / name


def _is_image(path: Path, folder: Path, left_out: _LeftOut) -> bool:
    """Returns whether a file is to be read; notes it in `left_out` if not."""
    ending = path.suffix.lower()
    has_image_ending = ending in readable_endings()
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        if has_image_ending:
            return True  # Decoding refuses it, by name.
        left_out.dangling.append(str(path.relative_to(folder)))
        return False
    if not has_image_ending:
        left_out.endings[ending or "none"] += 1
    elif not stat.S_ISREG(mode):
        left_out.irregular.append(str(path.relative_to(folder)))
    return has_image_ending and stat.S_ISREG(mode)


def _sort_key(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns a sort key of a relative path that does not depend on file system and locale."""
    return tuple(map(unicode_name, path.parts)), path.parts


def _raise(error: OSError) -> None:
    raise error
