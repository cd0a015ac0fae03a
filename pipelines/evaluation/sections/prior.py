"""Metrics of stage two: bits of the codes of unseen images under the prior."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from pipelines.evaluation.record import Definition, Metric
from pipelines.runs.batches import code_batches
from stage1_vqvae.code_dump import CodeDump, SplitCodes
from stage2_prior.base import CodePrior
from stage2_prior.objective import measure_bits_per_code

_define = partial(Definition, "prior")
_BITS_PER_CODE = _define(
    "bits_per_code",
    "Bits per code",
    "bits",
    "lower",
    "-log2 of the probability of a code of a test image; far above the value of training images, "
    "the prior overfits.",
)
_BITS_PER_IMAGE = _define(
    "bits_per_image",
    "Bits per image",
    "bits",
    "lower",
    "The same over all codes of an image: the length of an ideal entropy code.",
)
_BITS_PER_PIXEL = _define(
    "bits_per_pixel", "Bits per pixel", "bits", "lower", "The same per pixel of the image."
)
_ORDER_0_ENTROPY = _define(
    "order_0_entropy",
    "Order-0 entropy",
    "bits per code",
    "neither",
    "Bits per code if each code were coded by its frequency alone.",
)


def prior_metrics(
    prior: CodePrior, dump: CodeDump, image_size: tuple[int, int]
) -> tuple[Metric, ...]:
    """Measures bits per code, image and pixel, and the order-0 entropy, on the test split.

    The prior is left in evaluation mode; `image_size` is (H, W).
    """
    test, pixels = dump.splits["test"], image_size[0] * image_size[1]
    bits = measure_bits_per_code(prior, code_batches(test))
    order_0 = dump.order_0_entropy("test")
    references = {
        "validation": measure_bits_per_code(prior, code_batches(dump.splits["validation"])),
        "train": measure_bits_per_code(
            prior, code_batches(_random_part(dump.splits["train"], len(test)))
        ),
        "order-0 entropy": order_0,
    }
    per_image, order_0_per_image = bits * prior.num_codes, order_0 * prior.num_codes
    return (
        _BITS_PER_CODE.measured(bits, len(test), references=references),
        _BITS_PER_IMAGE.measured(
            per_image, len(test), references={"order-0 entropy": order_0_per_image}
        ),
        _BITS_PER_PIXEL.measured(
            per_image / pixels,
            len(test),
            references={"order-0 entropy": order_0_per_image / pixels},
        ),
        _ORDER_0_ENTROPY.measured(order_0, len(test)),
    )


def _random_part(split: SplitCodes, count: int) -> SplitCodes:
    """Returns `count` images of a split, or all, the same every time."""
    order = np.random.default_rng(0).permutation(len(split))[:count]
    return split.rows(torch.from_numpy(order))
