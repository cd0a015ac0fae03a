"""Structural similarity as the paper writes it, and images that have some structure."""

import numpy as np


def smooth_images(count, channels, height, width):
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 200, (count, channels, height // 4 + 1, width // 4 + 1))
    smooth = coarse.repeat(4, 2).repeat(4, 3)[:, :, :height, :width]
    return (smooth + generator.integers(0, 50, smooth.shape)).astype(np.uint8)


def slow_ssim(first, second):
    """Equation 13 of Wang et al. 2004 in float64, Gaussian window of 11x11 and sigma 1.5.

    Every window lies wholly within the images.
    """
    offsets = np.arange(11) - 5
    profile = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(profile, profile) / profile.sum() ** 2

    def weighted(values):
        views = np.lib.stride_tricks.sliding_window_view(values, (11, 11), axis=(-2, -1))
        return (views * window).sum((-2, -1))

    x, y = first.astype(float), second.astype(float)
    mean_x, mean_y = weighted(x), weighted(y)
    variance_x, variance_y = weighted(x * x) - mean_x**2, weighted(y * y) - mean_y**2
    covariance = weighted(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (numerator / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).mean()
