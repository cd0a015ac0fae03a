"""What a user chooses about an evaluation. Imports no torch, so that `--help` stays instant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from stage2_prior.sampling.settings import SamplingSettings

_QUICK_SAMPLES, _QUICK_CAS_SAMPLES = 2000, 4000


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSettings:
    """The options that decide the metrics."""

    samples: int = 10_000
    """Images on each side of a distance between sets, at least 20; at most as many as the test
    split has."""
    cas_samples: int | None = None
    """Class-conditional samples that the classification accuracy score trains on; None takes as
    many as there are real training images, which is also the most there can be."""
    cas_seeds: int = 2
    """Classifiers trained on samples, and on real images, for that score."""
    quick: bool = False
    """A look: at most 2,000 samples a side, 4,000 for the classification accuracy score, and one
    seed."""
    seed: int = 0
    """Of the samples; in [0, 2^63)."""
    sampling: Annotated[SamplingSettings, tyro.conf.arg(name="")] = field(
        default_factory=lambda: SamplingSettings(compile="auto")
    )
    """How codes are drawn."""

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range.
        """
        if self.samples < 20:
            raise ValueError(f"samples must be at least 20, got {self.samples}")
        if self.cas_samples is not None and self.cas_samples < 20:
            raise ValueError(f"cas_samples must be at least 20 or None, got {self.cas_samples}")
        if self.cas_seeds < 1:
            raise ValueError(f"cas_seeds must be at least 1, got {self.cas_seeds}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be in [0, 2^63), got {self.seed}")

    @property
    def side(self) -> int:
        """Samples a side of a distance, before the splits' sizes limit them."""
        return min(self.samples, _QUICK_SAMPLES) if self.quick else self.samples

    @property
    def seeds(self) -> int:
        """Classifiers of each kind."""
        return 1 if self.quick else self.cas_seeds

    def num_cas_samples(self, num_real: int) -> int:
        """Samples for the classification accuracy score, given the number of real images."""
        wanted = num_real if self.cas_samples is None else self.cas_samples
        return min(wanted, num_real, _QUICK_CAS_SAMPLES) if self.quick else min(wanted, num_real)
