"""Nearest training images by pixels, and detection of memorised samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.training.device import float64_device

# Pixels moved to [-128, 127] have products of at most 2^14, and float32 holds whole numbers up to
# 2^24: sums over this many pixels are exact, in whatever order and precision they are multiplied.
_EXACT_PIXELS = 1024
_CHUNK_PIXELS = 2**22
_MAX_CHUNK = 1024  # a table of 1024 x 1024 float64, 8 MB, mostly stays in a processor's cache

CONTROL_PERCENTILE = 1.0
"""Per cent of control images that are nearer to a training image than the threshold."""
_WARNING_FACTOR = 3.0
_COPIES_TO_BE_FOUND = 0.5


@dataclass(frozen=True)
class NearestImages:
    """The training image nearest to each image, on the CPU."""

    index: Tensor
    """int64 (N,), into the training images; the first of several equally near."""
    distance: Tensor
    """float32 (N,), root mean square difference of their pixels, in gray levels of 0..255."""


def nearest_training_images(images: Tensor, training: NDArray[np.uint8]) -> NearestImages:
    """Finds the nearest training image of each image by the Euclidean distance of the pixels.

    Exact, in memory that does not grow with N or M.

    Args:
        images: uint8 (N, C, H, W), on the device to compute on.
        training: uint8 (M, C, H, W), also as a `np.memmap`.

    Raises:
        TypeError: Images or training images are not uint8.
        ValueError: There are none, or they differ in shape.
    """
    if images.dtype != torch.uint8 or training.dtype != np.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype} and {training.dtype}")
    if not len(images) or not len(training) or images.shape[1:] != training.shape[1:]:
        raise ValueError(
            "images and training images must be at least one each and of one shape, got "
            f"{tuple(images.shape)} and {training.shape}"
        )
    images = images.to(float64_device(images.device))
    pixels = training[0].size
    chunk = max(1, min(_MAX_CHUNK, _CHUNK_PIXELS // pixels))
    # |x - y|^2 = |x|^2 + |y|^2 - 2 x y, all in whole numbers.
    best = torch.full((len(images),), torch.inf, dtype=torch.float64, device=images.device)
    index = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    for first in range(0, len(training), chunk):
        known = torch.from_numpy(training[first : first + chunk].copy()).to(images.device)
        y = _centred(known)
        lengths = _squared_lengths(y)  # (M',)
        for start in range(0, len(images), chunk):
            rows = slice(start, start + chunk)
            x = _centred(images[rows])
            squared, nearest = _less_twice_the_products(lengths, x, y).min(dim=1)
            squared += _squared_lengths(x)
            nearer = squared < best[rows]
            best[rows] = torch.where(nearer, squared, best[rows])
            index[rows] = torch.where(nearer, nearest + first, index[rows])
    return NearestImages(index.cpu(), (best / pixels).sqrt().float().cpu())


@dataclass(frozen=True)
class Memorisation:
    """The result of `detect_memorisation`."""

    threshold: float
    """Distance to training images that 99 % of the control images exceed."""
    share: float
    """Part of the samples not above the threshold, in [0, 1]."""
    limit: float
    """Part of the samples above which there is a warning; with few controls even 1 or more."""

    @property
    def warning(self) -> bool:
        """Whether that part is significantly above that of new images."""
        return self.share > self.limit

    @property
    def conclusive(self) -> bool:
        """Whether there would be a warning if half of the samples were copies."""
        return self.limit < _COPIES_TO_BE_FOUND


def detect_memorisation(samples: Tensor, controls: tuple[Tensor, ...]) -> Memorisation:
    """Compares the distances of samples with those of images that cannot be memorised.

    By construction about 1 % of the controls are nearer than the threshold, or one of fewer than
    100. There is a warning if more than 3 % of the samples are, and more than three standard errors
    above what chance makes of so many samples and controls.

    Args:
        samples: float32 (N,) distances of samples to their nearest training images.
        controls: float32 (M,) each, distances of control images: test images, and images as
            smooth as samples, e.g. reconstructions of test images. The threshold is the lowest of
            their first percentiles.

    Raises:
        ValueError: There are no samples or no controls.
    """
    if not len(samples) or not controls or not all(map(len, controls)):
        raise ValueError("distances of at least one sample and one test image are required")
    part = CONTROL_PERCENTILE / 100
    threshold = min(float(np.quantile(distances.numpy(), part)) for distances in controls)
    # Also those at it, which is 0 where the test split has copies of training images.
    share = (samples <= threshold).double().mean().item()
    fewest = min(map(len, controls))
    # Of new images: the mean of the order statistic that the percentile is, of uniform numbers.
    expected = (1 + part * (fewest - 1)) / (fewest + 1)
    error = (expected * (1 - expected) * (1 / len(samples) + 1 / fewest)) ** 0.5
    limit = max(_WARNING_FACTOR * part, expected + 3 * error)
    return Memorisation(threshold, share, limit)


def _centred(images: Tensor) -> Tensor:
    """Returns images as float32 (N, pixels) in [-128, 127]."""
    return images.flatten(1).float() - 128


def _squared_lengths(x: Tensor) -> Tensor:
    """Computes exact squared lengths, float64 (N,)."""
    return x.double().square().sum(dim=1)


def _less_twice_the_products(lengths: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Computes `lengths - 2 x y` exactly, float64 (N, M), of x (N, pixels) and y (M, pixels).

    One pass over the table per part of the pixels: what costs is its memory, not the sums.
    """
    result = lengths
    for start in range(0, x.shape[1], _EXACT_PIXELS):
        part = slice(start, start + _EXACT_PIXELS)
        result = torch.sub(result, x[:, part] @ y[:, part].T, alpha=2)
    return result
