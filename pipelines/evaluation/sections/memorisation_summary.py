"""Whether samples are copies of training images: how near they are, beside images that are new."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipelines.data.image_set import DataSplits
from pipelines.evaluation.metrics.nearest_images import detect_memorisation, nearest_training_images
from pipelines.runs.batches import reconstruct_images
from stage1_vqvae.model import VQVAE

_MOST_TEST_IMAGES = 2000  # enough for a first percentile


def describe_memorisation(samples: Tensor, vqvae: VQVAE, splits: DataSplits) -> str:
    """Says how far samples, test images and their reconstructions are from the training images.

    The reconstructions are there because samples are decoded too: whatever smoothness the VQ-VAE
    adds brings an image nearer to others without its being a copy.

    Args:
        samples: uint8 (N, C, H, W).
        vqvae: What decoded them, on the device to compute on.
        splits: The data that it was trained on.

    Returns:
        Two lines.
    """
    device = next(vqvae.parameters()).device
    training = splits.train.images
    test = splits.test.take(np.arange(min(len(splits.test), _MOST_TEST_IMAGES)))
    images = {
        "samples": samples.cpu(),
        "test images": torch.from_numpy(test.images),
        "their reconstructions": torch.from_numpy(reconstruct_images(vqvae, test)),
    }
    # One search for all: each goes through the whole training set.
    everything = torch.cat(list(images.values())).to(device)
    found = nearest_training_images(everything, training).distance
    parts = torch.split(found, [len(part) for part in images.values()])
    distances = dict(zip(images, parts, strict=True))
    drawn, *controls = distances.values()
    judgement = detect_memorisation(drawn, tuple(controls))
    nearer = int((drawn < judgement.threshold).sum())
    verdict = (
        "more than chance allows: look for copies" if judgement.warning else "no sign of copies"
    )
    metrics = "; ".join(f"{name} {_median_and_first(d)}" for name, d in distances.items())
    return (
        "distance to the nearest training image in gray levels, median and 1st percentile: "
        f"{metrics}\n"
        f"{nearer} of {len(drawn)} samples are nearer than 99 % of {len(test)} test images and of "
        f"their reconstructions ({judgement.threshold:.1f}): {verdict}"
    )


def _median_and_first(distances: Tensor) -> str:
    median, first = np.quantile(distances.numpy(), [0.5, 0.01])
    return f"{median:.1f} and {first:.1f}"
