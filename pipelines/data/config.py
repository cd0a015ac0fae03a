"""Settings of the images: source, form and splits. Imports no numpy, so that `--help` is fast."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.data.form import Fit, ImageForm, check_background
from pipelines.files.names import printable

NAMED_SOURCES = ("fashion-mnist-mini", "fashion-mnist", "mnist", "cifar10", "svhn")
PATH_SOURCES = ("folder", "npz")
MAX_MEMORY_MIB = 2048
MAX_IMAGE_MEGAPIXELS = 89  # as Pillow warns from; 10,000 x 8,900


def parse_source(source: str) -> tuple[str, Path | None]:
    """Splits a source such as `mnist` or `folder:photos` into its kind and its path.

    The path has `~` expanded; that of a named source is None.

    Raises:
        ValueError: The source is unknown or lacks its path.
    """
    kind, colon, path = source.partition(":")
    if kind in PATH_SOURCES:
        if not path:
            raise ValueError(f"data.source {kind} needs a path, got {source!r}: write {kind}:PATH")
        return kind, Path(path).expanduser()
    if source in NAMED_SOURCES:
        return source, None
    known = PATH_SOURCES if colon else NAMED_SOURCES
    nearest = difflib.get_close_matches(kind.strip().lower(), known, n=1)
    suggestion = printable(
        f"did you mean {nearest[0]}{colon}{path}?"
        if nearest
        else f"for a folder write folder:{source}"
    )
    choices = ", ".join((*NAMED_SOURCES, "folder:PATH", "npz:PATH"))
    raise ValueError(f"data.source must be one of {choices}, got {source!r}: {suggestion}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Source, form and splits of the images.

    Raises:
        ValueError: If a field is out of its range, or the source is unknown.
    """

    source: str = "fashion-mnist-mini"
    """The image set: fashion-mnist-mini (comes with the package), fashion-mnist, mnist, cifar10,
    svhn, folder:PATH (a tree of PNG, JPEG, WebP, BMP, TIFF, GIF, PPM or AVIF images, and HEIC where
    pillow-heif is installed; sub-folders are classes, or the splits train, val and test) or
    npz:PATH (uint8 `images` (N, H, W) or (N, H, W, C), optionally `labels`, `test_images` and
    `test_labels`)."""
    root: Path = Path("data")
    """Data folder: where named sets are looked for and downloaded to, and where the temporary file
    of a folder above `max_memory_mib` lives."""
    download: bool = True
    """Whether a named set that is not found may be downloaded into `root`."""
    image_size: tuple[int, int] | None = None
    """Height and width in pixels that every image is brought to. None keeps the images' own size,
    which must then be the same for all."""
    fit: Fit = "crop"
    """How an image of another aspect ratio is brought to `image_size`: crop resizes it to cover the
    size and cuts off what stands out on both sides, pad resizes it to fit inside and fills the rest
    with `background`, stretch resizes both sides."""
    background: str = "white"
    """Colour that transparent images are put on, and of the padding of fit pad: a name such as
    black, or #rrggbb. Gray images take its luma."""
    channels: Literal[1, 3] | None = None
    """1 for gray, 3 for RGB; images are converted. None keeps what the source has (a folder: gray
    if every file in it is, else RGB)."""
    labels: bool = True
    """Whether class labels are used where there are any; without them the sub-folders of a folder
    are only a place to find images in."""
    validation_fraction: float | None = None
    """Fraction in (0, 1) of the training images carved off as the validation split, always by the
    same permutation. None takes 5 percent, of fewer than 800 images 40 images or a fifth. Unused
    where a folder brings a validation split of its own."""
    test_fraction: float = 0.1
    """Fraction in (0, 1) of all images carved off as the test split, by the same permutation, where
    the set brings no test split of its own."""
    limit: int | None = None
    """At most so many images in each split, the first ones of the fixed permutation. None takes
    all."""
    skip_broken: bool = False
    """Whether files of a folder that cannot be read are left out (and counted) instead of stopping
    the run."""
    max_memory_mib: int = MAX_MEMORY_MIB
    """Decoded pixels of one split of a folder stay in RAM up to this many MiB; above, they go to a
    memory-mapped temporary file in `root`, deleted when the process ends. An npz file that unpacks
    to more than this and to more than 16 times its own size is refused."""
    max_image_megapixels: int = MAX_IMAGE_MEGAPIXELS
    """Largest image of a folder that is decoded, in millions of pixels, against files made to
    exhaust memory. A JPEG counts at the fraction of its size at which `image_size` has it
    decoded."""

    @property
    def form(self) -> ImageForm:
        """The form that images are brought to."""
        return ImageForm(self.image_size, self.fit, self.background)

    def __post_init__(self) -> None:
        parse_source(self.source)
        check_background(self.background)
        size, limit = self.image_size, self.limit
        rules = {
            "image_size": (
                size is None or (len(size) == 2 and min(size) >= 1),
                "a height and a width of at least 1 pixel",
                "leave it out to keep the images' own size",
            ),
            "channels": (
                self.channels in (None, 1, 3),
                "1 (gray) or 3 (RGB)",
                "leave it out to keep what the source has",
            ),
            "validation_fraction": (
                self.validation_fraction is None or 0 < self.validation_fraction < 1,
                "strictly between 0 and 1",
                "every run needs a validation split",
            ),
            "test_fraction": (
                0 < self.test_fraction < 1,
                "strictly between 0 and 1",
                "every run needs a test split",
            ),
            "limit": (
                limit is None or limit >= 1,
                "at least 1 image",
                "leave it out to take all images",
            ),
            "max_memory_mib": (
                self.max_memory_mib >= 0,
                "at least 0 MiB",
                "0 always takes a temporary file",
            ),
            "max_image_megapixels": (
                self.max_image_megapixels >= 1,
                "at least 1",
                f"leave it out to take {MAX_IMAGE_MEGAPIXELS}",
            ),
        }
        for name, (holds, rule, advice) in rules.items():
            if not holds:
                raise ValueError(f"data.{name} must be {rule}, got {getattr(self, name)}: {advice}")
