"""Random crops and mirrored images, which stage one learns from instead of the same few images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class VQVAEAugmentationConfig:
    """What stage one sees of the training images. All else sees them as they are.

    Raises:
        ValueError: A field is out of the range its description gives.
    """

    crop: int | None = None
    """Train on random squares of so many pixels instead of whole images: a multiple of
    `vqvae.downsampling`, at most the images' smaller side. A step takes less time, and every epoch
    shows other squares. None trains on whole images."""
    flip: bool = False
    """Mirror each training image, left to right, with probability 1/2."""

    def __post_init__(self) -> None:
        if self.crop is not None and self.crop < 1:
            raise ValueError(
                f"vqvae_augmentation.crop must be at least 1 pixel, got {self.crop}: leave it out "
                "to train on whole images"
            )

    def check_fits(self, image_shape: tuple[int, int, int], downsampling: int) -> None:
        """Refuses crops that images (C, H, W) do not have, or that would need padding.

        The outer codes of a padded crop would learn from repeated pixels.
        """
        if self.crop is None:
            return
        if self.crop > min(image_shape[1:]):
            raise ValueError(
                "vqvae_augmentation.crop must be at most the images' smaller side "
                f"({min(image_shape[1:])} pixels), got {self.crop}: lower it, or leave it out"
            )
        if self.crop % downsampling:
            raise ValueError(
                "vqvae_augmentation.crop must be a multiple of vqvae.downsampling "
                f"({downsampling}), got {self.crop}: take "
                f"{max(1, self.crop // downsampling) * downsampling}"
            )

    def image_size(self, image_shape: tuple[int, int, int]) -> tuple[int, int]:
        """Returns height and width in training of images (C, H, W)."""
        _, height, width = image_shape
        return (height, width) if self.crop is None else (self.crop, self.crop)

    def __call__(self, images: Tensor) -> Tensor:
        """Augments images (B, C, H, W) of any dtype, each on its own, by torch's global stream.

        Returns:
            (B, C, crop, crop), or (B, C, H, W) without crops.
        """
        import torch

        batch, _, height, width = images.shape
        device = images.device
        if self.crop is not None:
            top = torch.randint(height - self.crop + 1, (batch,), device=device)
            left = torch.randint(width - self.crop + 1, (batch,), device=device)
            # A view (B, C, rows, columns, crop, crop) of all windows; one of each is copied.
            windows = images.unfold(2, self.crop, 1).unfold(3, self.crop, 1)
            images = windows[torch.arange(batch, device=device), :, top, left]
        if self.flip:
            mirrored = torch.rand(batch, device=device) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return images

    def __str__(self) -> str:
        """Describes it for people; empty where images are seen as they are."""
        crop = [] if self.crop is None else [f"random {self.crop}x{self.crop} crops"]
        return ", ".join([*crop, *(["half of the images mirrored"] if self.flip else [])])
