"""How well the prior predicts the codes of images it has not seen, as metrics."""

from __future__ import annotations

import numpy as np
import torch

from pipelines.evaluation.record import Metric, Reference
from pipelines.runs.batches import code_batches
from stage1_vqvae.code_dump import CodeDump, SplitCodes
from stage1_vqvae.quantizers.nearest import code_counts, entropy_bits
from stage2_prior.base import CodePrior
from stage2_prior.objective import measure_bits_per_code


def prior_metrics(
    prior: CodePrior, dump: CodeDump, image_size: tuple[int, int]
) -> tuple[Metric, ...]:
    """Bits per code, image and pixel on the test split, beside training and validation images.

    Args:
        prior: On its device; is put into evaluation mode and left there.
        dump: The codes of every split.
        image_size: Height and width of an image.
    """
    test = dump.splits["test"]
    bits = measure_bits_per_code(prior, code_batches(test))
    validation = measure_bits_per_code(prior, code_batches(dump.splits["validation"]))
    train = _random_part(dump.splits["train"], len(test))
    trained = measure_bits_per_code(prior, code_batches(train))
    entropies = [
        entropy_bits(code_counts(grid, size)) * grid[0].numel()
        for grid, size in zip(test.codes, dump.codebook_sizes, strict=True)
    ]
    order_0 = sum(entropies) / prior.num_codes
    pixels = image_size[0] * image_size[1]
    count = len(test)
    return (
        Metric(
            group="prior",
            name="bits_per_code",
            label="Bits per code",
            value=bits,
            unit="bits",
            better="lower",
            explanation="Surprise of the prior at a code of a test image; far above the metric of "
            "training images, it has learned those by heart.",
            num_images=count,
            references=(
                Reference(label="validation", value=validation),
                Reference(label="train", value=trained),
                Reference(label="order-0 entropy", value=order_0),
            ),
        ),
        Metric(
            group="prior",
            name="bits_per_image",
            label="Bits per image",
            value=bits * prior.num_codes,
            unit="bits",
            better="lower",
            explanation="The same over all codes of an image: what an ideal coder would store.",
            num_images=count,
            references=(Reference(label="order-0 entropy", value=order_0 * prior.num_codes),),
        ),
        Metric(
            group="prior",
            name="bits_per_pixel",
            label="Bits per pixel",
            value=bits * prior.num_codes / pixels,
            unit="bits",
            better="lower",
            explanation="The same per pixel of the image.",
            num_images=count,
            references=(
                Reference(label="order-0 entropy", value=order_0 * prior.num_codes / pixels),
            ),
        ),
        Metric(
            group="prior",
            name="order_0_entropy",
            label="Order-0 entropy",
            value=order_0,
            unit="bits per code",
            better="neither",
            explanation="Bits per code if each were coded by its frequency alone: what the prior "
            "saves from is this.",
            num_images=count,
        ),
    )


def _random_part(split: SplitCodes, count: int) -> SplitCodes:
    """`count` images of a split, or all, the same every time."""
    order = np.random.default_rng(0).permutation(len(split))[:count]
    rows = torch.from_numpy(order)
    labels = None if split.labels is None else split.labels[rows]
    return SplitCodes(tuple(grid[rows] for grid in split.codes), labels)
