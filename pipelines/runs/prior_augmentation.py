"""Other views of the training images, whose codes a prior can learn besides their own.

Distribution augmentation (Jun et al. 2020, "Distribution Augmentation for Generative Modeling"):
the prior is told which view it sees, so that it learns what the views have in common and still
samples the images as they are. It is for a prior that would overfit.

Other than in the paper, whose views turn images over, they are mirrored and moved, and their share
falls during training, so that the last and smallest steps are for the images as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class View:
    """A view of an image: mirrored, then moved."""

    name: str
    """Short, for file names."""
    flipped: bool = False
    """Left and right change places."""
    right: int = 0
    """Pixels to the right; negative is to the left."""
    down: int = 0
    """Pixels down; negative is up."""

    def __call__(self, images: Tensor) -> Tensor:
        """Maps images (B, C, H, W) of any dtype to the same shape; edges are repeated."""
        import torch

        _, _, height, width = images.shape
        rows = torch.arange(height, device=images.device) - self.down
        columns = torch.arange(width, device=images.device) - self.right
        if self.flipped:
            images = images.flip(3)
        return images[:, :, rows.clamp(0, height - 1)][..., columns.clamp(0, width - 1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorAugmentationConfig:
    """Which views of the training images the prior learns besides the images, and how often.

    Raises:
        ValueError: A field is out of the range its description gives.
    """

    flip: bool = False
    """Learn each image mirrored, too."""
    shift: int = 0
    """Learn each image moved up, down, left and right by so many pixels, too; 0 for not. About half
    of `vqvae.downsampling` makes the codes differ most."""
    first_share: float = 0.75
    """Share of the images that are seen in another view at the start of the prior's training, in
    [0, 1]; it changes linearly."""
    last_share: float = 0.25
    """That share at its end, in [0, 1]."""

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise ValueError(
                f"prior_augmentation.shift must be at least 0 pixels, got {self.shift}"
            )
        for name in ("first_share", "last_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"prior_augmentation.{name} must be in [0, 1], got {getattr(self, name)}"
                )

    @property
    def other_views(self) -> tuple[View, ...]:
        """All views besides the image itself."""
        found = (View("flipped", flipped=True),) if self.flip else ()
        if not self.shift:
            return found
        pixels = self.shift
        return (
            *found,
            View(f"right-{pixels}", right=pixels),
            View(f"left-{pixels}", right=-pixels),
            View(f"down-{pixels}", down=pixels),
            View(f"up-{pixels}", down=-pixels),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the other views."""
        return tuple(view.name for view in self.other_views)

    @property
    def num_views(self) -> int:
        """Number of views, the image itself included."""
        return 1 + len(self.other_views)

    def num_extra_labels(self, num_classes: int | None) -> int:
        """Counts labels that only augmented images have: all classes and `no label`, per view."""
        return len(self.other_views) * ((num_classes or 0) + 1)

    def check_fits(self, image_shape: tuple[int, int, int]) -> None:
        """Refuses to move images (C, H, W) out of their own frame."""
        if self.shift >= min(image_shape[1:]):
            raise ValueError(
                f"prior_augmentation.shift must be below the images' smaller side "
                f"({min(image_shape[1:])} pixels), got {self.shift}"
            )

    def share(self, fraction: float) -> float:
        """Returns the share of images in another view after `fraction` of training, in [0, 1]."""
        return self.first_share + (self.last_share - self.first_share) * fraction


def also_seen(names: tuple[str, ...]) -> str:
    """Lists the names of the other views, for people; empty without any."""
    return f"training images also {', '.join(names)}" if names else ""
