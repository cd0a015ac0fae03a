"""The `config.json` of a code dump. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stage1_vqvae.config_checks import (
    MAX_CLASSES,
    MAX_CODEBOOK_SIZE,
    MAX_GRIDS,
    require,
    require_between,
)

SPLITS = ("train", "validation", "test")
_VIEW_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeDumpRecord:
    """The `config.json` of a code dump."""

    vqvae_sha256: str
    """`weights_hash()` of the model that made the codes."""
    codebook_sizes: tuple[int, ...]
    """Per grid."""
    num_classes: int | None
    """Number of classes the labels come from; None without labels."""
    num_images: dict[str, int]
    """By split."""
    other_views: tuple[str, ...]
    """Names of other views of the training images."""
    file_sha256: dict[str, str]
    """SHA-256 of each split's and view's file, by its name without `.safetensors`."""

    def __post_init__(self) -> None:
        require_between("the number of codebook_sizes", len(self.codebook_sizes), 1, MAX_GRIDS)
        for size in self.codebook_sizes:
            require_between("codebook_sizes", size, 1, MAX_CODEBOOK_SIZE)
        if self.num_classes is not None:
            require_between("num_classes", self.num_classes, 1, MAX_CLASSES)
        require(set(self.num_images) == set(SPLITS), "num_images", f"of {SPLITS}", self.num_images)
        for name, count in self.num_images.items():
            require(count >= 0, f"num_images.{name}", "at least 0", count)
        for name in self.other_views:
            require_view_name(name)
        expected = {*SPLITS, *map(view_file, self.other_views)}
        files = set(self.file_sha256)
        require(files == expected, "file_sha256", f"of {sorted(expected)}", "others")


def view_file(name: str) -> str:
    """Returns the name, without `.safetensors`, of the file of a view of the training images."""
    return f"train-{name}"


def require_view_name(name: str) -> None:
    """Raises a ValueError unless the name of a view can be part of a file's."""
    rule = "of 1 to 64 letters, digits, hyphens and underscores"
    require(_VIEW_NAME.fullmatch(name) is not None, "the name of a view", rule, repr(name))
