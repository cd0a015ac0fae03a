"""Measurements of one run of a sweep. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from pipelines.evaluation.record import Definition, Metric
from pipelines.files.records import AnyFloat

_stage_one = partial(Definition, "reconstruction")
_prior = partial(Definition, "prior")
DEFINITIONS = (
    _stage_one(
        "bits_per_position",
        "bits/position",
        "",
        "neither",
        "Rate before entropy coding: bits of a grid position, over all grids of codes.",
    ),
    _stage_one("bits_per_image", "bits/image", "", "neither", "The same of an image."),
    _stage_one("bits_per_pixel", "bits/pixel", "", "neither", "The same over height x width."),
    _stage_one(
        "psnr",
        "PSNR",
        "dB",
        "higher",
        "Peak signal-to-noise ratio over all pixels; infinite for exact reconstructions.",
    ),
    _stage_one(
        "ssim",
        "SSIM",
        "",
        "higher",
        "Structural similarity, 11x11 window, mean over images; not of smaller images.",
    ),
    _stage_one("usage", "usage", "%", "neither", "Share of the codes in use, in the worst grid."),
    _stage_one(
        "perplexity",
        "perplexity",
        "",
        "neither",
        "Exp of the entropy of the codes, in the worst grid.",
    ),
    _stage_one(
        "order_0_entropy",
        "entropy",
        "",
        "neither",
        "Bits per code that an ideal order-0 entropy coder needs.",
    ),
    _prior(
        "bits_per_code",
        "prior bits/code",
        "",
        "neither",
        "-log2 p(codes) under the trained prior per code, given the label where there are labels.",
    ),
    _prior(
        "prior_bits_per_image",
        "prior bits/image",
        "",
        "neither",
        "The same over all codes of all grids.",
    ),
    _stage_one(
        "vqvae_seconds", "train", "s", "neither", "Training time of stage one with validations."
    ),
    _prior("prior_seconds", "prior train", "s", "neither", "Training time of the prior."),
    _stage_one(
        "parameters",
        "parameters",
        "",
        "neither",
        "Of the VQ-VAE; a codebook that gradient descent does not train is not counted.",
    ),
    _stage_one(
        "images_per_second",
        "images/s",
        "",
        "neither",
        "Training images of stage one per second, with validations.",
    ),
)
"""In the order of the table's columns."""
_NAMES = frozenset(definition.name for definition in DEFINITIONS)


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepRow:
    """One run of a sweep, measured on the whole test split."""

    kind: str
    """Quantizer."""
    codebook_size: int
    """The requested K: log2(K) bits a grid position."""
    codebook_sizes: tuple[int, ...] = ()
    """The number of codes of each grid; their product is K. Empty until it is measured."""
    values: Mapping[str, AnyFloat] = field(default_factory=dict)
    """Metrics by the names of `DEFINITIONS`, shares in [0, 1]; those not measured are missing."""
    failure: str | None = None
    """Why the run did not end; None where it did."""

    def __post_init__(self) -> None:
        if unknown := self.values.keys() - _NAMES:
            raise ValueError(f"values must be metrics of a sweep, got {', '.join(sorted(unknown))}")

    def has(self, stage: Literal["vqvae", "prior"]) -> bool:
        """Checks if a stage was measured."""
        return ("psnr" if stage == "vqvae" else "bits_per_code") in self.values

    def metrics(self, num_images: int) -> list[Metric]:
        """Returns the values with their definitions; `num_images` is the size of the test split."""
        return [
            definition.measured(
                self.values[definition.name] * (100 if definition.unit == "%" else 1), num_images
            )
            for definition in DEFINITIONS
            if definition.name in self.values
        ]
