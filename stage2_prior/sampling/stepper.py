"""One batch being decoded position by position, and the loop that samples it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from stage2_prior.sampling.logits import guidance_scales, guide_and_sample, temperatures
from stage2_prior.sampling.settings import SamplingSettings


class CodeStepper(ABC):
    """One batch being decoded: gives the next position's logits and accepts the chosen codes.

        with prior.stepper(labels) as stepper:
            while stepper.num_known < prior.num_codes:
                codes = stepper.logits().argmax(dim=-1)  # or an entropy decoder's
                stepper.accept(codes)

    The sampler and an entropy coder are its users. Logits are float32, or float64 for a prior that
    was converted by `.double()`.
    """

    num_known: int
    """Codes of each image that are known so far."""

    @abstractmethod
    def logits(self) -> Tensor:
        """Computes the logits (B, K) of the next position, given the codes accepted so far.

        Guidance is not applied. Where the images' next positions lie in grids of several codebook
        sizes, K is the largest of them, and codes beyond have the logit `NO_CODE`.
        """

    @abstractmethod
    def accept(self, codes: Tensor) -> None:
        """Takes int64 (B,) as the codes of the next position."""

    def sample(self, rule: SamplingRule, uniform: Tensor) -> Tensor:
        """Samples the next position's codes, int64 (B,), without accepting them."""
        return rule(self.logits(), uniform, self.num_known)[0]

    def close(self) -> None:  # noqa: B027 - most steppers have nothing to free
        """Frees memory; the stepper must not be used afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


@dataclass(frozen=True)
class DecodingStart:
    """The order in which a batch is decoded, and the codes that are known beforehand."""

    order: Tensor
    """int64 (B, L), or (1, L) for all images: positions of the sequence, the known ones first."""
    codes: Tensor
    """int64 (B, L), by position; only known ones matter."""
    num_known: int
    """Known positions that the order begins with."""


class SamplingRule:
    """Chooses codes from logits: guidance, temperature, top-k, top-p and one uniform number.

    Args:
        settings: How to sample.
        num_codes: L, over which guidance and temperature may change.
    """

    def __init__(self, settings: SamplingSettings, num_codes: int) -> None:
        self.settings = settings
        self.guidance_scales = guidance_scales(settings, num_codes)
        self.temperatures = temperatures(settings, num_codes)

    @property
    def copies(self) -> int:
        """Rows of a stepper per image: 2 under guidance, of which the second has no label."""
        return 2 if self.settings.guided else 1

    def __call__(self, logits: Tensor, uniform: Tensor, num_known: int) -> tuple[Tensor, Tensor]:
        """Samples codes when `num_known` codes of each image are known; see `guide_and_sample`."""
        return guide_and_sample(
            logits,
            uniform,
            self.settings,
            guidance_scale=self.guidance_scales[num_known],
            temperature=self.temperatures[num_known],
        )


def sample_in_order(stepper: CodeStepper, rule: SamplingRule, uniform: Tensor) -> Tensor:
    """Samples the unknown positions one by one, each given all codes before it.

    Args:
        stepper: Decodes the batch, with `rule.copies` rows per image.
        rule: How to sample.
        uniform: float64 (B, n) in [0, 1), one number per unknown position, in order.

    Returns:
        int64 (B, n), in order.
    """
    sampled = []
    for numbers in uniform.unbind(dim=1):
        codes = stepper.sample(rule, numbers)
        stepper.accept(codes.repeat(rule.copies))
        sampled.append(codes)
    return torch.stack(sampled, dim=1)
