"""Structural similarity of images and their reconstructions."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from pipelines.training.device import float64_device

_WINDOW = 11


def structural_similarity(pairs: Iterable[tuple[Tensor, Tensor]]) -> float | None:
    """Computes the mean structural similarity of pairs of images (Wang et al. 2004, SSIM).

    Equation 13 with a Gaussian window of 11x11, sigma 1.5, averaged over the pixels around which
    the whole window lies in the image, channels and images. scikit-image computes the same with
    `gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255`.

    Args:
        pairs: At least one, each two uint8 (B, C, H, W) on one device; B may differ.

    Returns:
        In [-1, 1]; None for images smaller than the window.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    margin = _WINDOW // 2
    total, count = 0.0, 0
    for images, others in pairs:
        if min(images.shape[2:]) < _WINDOW:
            return None
        # For every pixel, with images reflected at their borders.
        _, local = structural_similarity_index_measure(
            others.float(), images.float(), data_range=255.0, return_full_image=True
        )
        inner: Tensor = local[..., margin:-margin, margin:-margin]
        inner = inner.to(float64_device(inner.device)).double()
        total += inner.mean(dim=(1, 2, 3)).sum().item()
        count += len(images)
    return total / count
