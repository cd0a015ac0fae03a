"""The options of an evaluation. Imports no torch, so that `--help` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from pipelines.cli.options import SampleSeed, check_seed
from stage2_prior.sampling.settings import SamplingSettings

_QUICK_SAMPLES, _QUICK_CAS_SAMPLES = 2000, 4000


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSettings:
    """The options that decide the values of an evaluation."""

    samples: int = 10_000
    """Images in each set of a distance, at least 20; at most the size of the test split."""
    cas_samples: int | None = None
    """Class-conditional samples to train on for the classification accuracy score; None takes the
    number of real training images, which is also the maximum."""
    cas_seeds: int = 2
    """Classifiers trained on samples, and on real images, for that score."""
    quick: bool = False
    """At most 2,000 samples per set, 4,000 for the classification accuracy score, and one seed."""
    seed: SampleSeed = 0
    sampling: Annotated[SamplingSettings, tyro.conf.arg(name="")] = field(
        default_factory=lambda: SamplingSettings(compile="auto")
    )
    """How codes are sampled."""

    def __post_init__(self) -> None:
        if self.samples < 20:
            raise ValueError(f"samples must be at least 20, got {self.samples}")
        if self.cas_samples is not None and self.cas_samples < 20:
            raise ValueError(f"cas_samples must be at least 20 or None, got {self.cas_samples}")
        if self.cas_seeds < 1:
            raise ValueError(f"cas_seeds must be at least 1, got {self.cas_seeds}")
        check_seed(self.seed)

    @property
    def side(self) -> int:
        """Samples per set of a distance, before limits by the splits' sizes."""
        return min(self.samples, _QUICK_SAMPLES) if self.quick else self.samples

    @property
    def seeds(self) -> int:
        """Number of classifiers of each kind."""
        return 1 if self.quick else self.cas_seeds

    def num_cas_samples(self, num_real: int) -> int:
        """Returns the samples for the classification accuracy score, given those of real images."""
        wanted = num_real if self.cas_samples is None else self.cas_samples
        return min(wanted, num_real, _QUICK_CAS_SAMPLES) if self.quick else min(wanted, num_real)
