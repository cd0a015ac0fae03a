"""How alike images and their reconstructions look, by local means, contrasts and patterns."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

_WINDOW = 11


def structural_similarity(pairs: Iterable[tuple[Tensor, Tensor]]) -> float | None:
    """Mean structural similarity of images and others (Wang et al. 2004, SSIM).

    Equation 13 with a Gaussian window of 11x11 around every pixel, images reflected at their
    borders, averaged over pixels, channels and images. The paper takes inner pixels only.

    Args:
        pairs: At least one, each two uint8 (B, C, H, W) on one device; B may differ.

    Returns:
        In [-1, 1]; None for images smaller than the window.
    """
    from torchmetrics.image import StructuralSimilarityIndexMeasure

    # One process measures: the others must not be waited for.
    metric = StructuralSimilarityIndexMeasure(data_range=255.0, sync_on_compute=False)
    for images, others in pairs:
        if min(images.shape[2:]) < _WINDOW:
            return None
        metric.to(images.device).update(others.float(), images.float())
    similarity = metric.compute()
    assert isinstance(similarity, Tensor)
    return similarity.item()
