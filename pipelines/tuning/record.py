"""What a try of sampling settings found, as one JSON file.

The command writes it and the report reads it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.files.records import read_record, write_record
from pipelines.runs.directory import RunDirectory
from stage2_prior.config import SamplingSettings

TUNING_FILE = "sampling_tuning.json"
_KIND, _FORMAT_VERSION = "tuning", 2
_LARGEST = 1e100


@dataclass(frozen=True)
class MeasuredSettings:
    """One way to sample, and how near its samples come to images that were kept back.

    Raises:
        ValueError: There is no distance, or one whose square would overflow.
    """

    settings: SamplingSettings
    distances: tuple[float, ...]
    """Frechet distance of each set of samples."""
    agreement: float | None
    """Part of the samples that a classifier takes for the class they were drawn for; None where
    the prior knows no classes."""

    def __post_init__(self) -> None:
        if not self.distances:
            raise ValueError("distances must be at least one, got none")
        if max(map(abs, self.distances)) > _LARGEST:
            raise ValueError(f"distances must be at most {_LARGEST}, got {self.distances}")

    @property
    def distance(self) -> float:
        """The mean over the sets."""
        return math.fsum(self.distances) / len(self.distances)

    @property
    def spread(self) -> float | None:
        """The standard deviation over the sets; None of one."""
        return math.sqrt(_variance(self.distances)) if len(self.distances) > 1 else None


@dataclass(frozen=True, kw_only=True)
class SamplingTuning:
    """All settings that were tried on a run, and on what.

    Raises:
        ValueError: There are none, or they have different numbers of sets.
    """

    vqvae: str
    """`weights_hash` of the model."""
    prior: str
    """The same."""
    feature_network: str
    """Key of the feature classifier."""
    images_per_set: int
    """Validation images, and samples in each set."""
    seed: int
    """Of the samples."""
    floor: float
    """Distance of as many training images from the validation images."""
    measured: tuple[MeasuredSettings, ...]
    """At least one."""

    def __post_init__(self) -> None:
        if not self.measured:
            raise ValueError("measured settings must be at least one, got none")
        if len({len(one.distances) for one in self.measured}) > 1:
            raise ValueError("all settings must have as many distances, got different numbers")

    @property
    def nearest(self) -> MeasuredSettings:
        """The settings of the smallest distance."""
        return min(self.measured, key=lambda one: one.distance)

    @property
    def as_near(self) -> list[MeasuredSettings]:
        """Others that chance may have put behind the nearest; none where there is one set only.

        All settings draw with the same random numbers, so their distances are compared set by set:
        the mean difference must be more than twice its standard error. The deviation of a
        difference is pooled over all settings, since one pair of few sets says little of it.
        """
        nearest, sets = self.nearest, len(self.nearest.distances)
        others = [one for one in self.measured if one != nearest]
        if sets == 1 or not others:
            return []
        differences = [
            [there - here for there, here in zip(one.distances, nearest.distances, strict=True)]
            for one in others
        ]
        variance = math.fsum(map(_variance, differences)) / len(others)
        limit = 2 * math.sqrt(variance / sets)
        return [
            one
            for one, values in zip(others, differences, strict=True)
            if math.fsum(values) / sets <= limit
        ]

    def write(self, path: Path) -> None:
        """Writes the record, atomically; an older one is replaced."""
        write_record(path, _KIND, _FORMAT_VERSION, self)

    @classmethod
    def read(cls, path: Path) -> SamplingTuning:
        """Reads what `write` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged or of another version.
        """
        option = RunDirectory(path.parent).option
        cure = f"try again with `python -m pipelines.tune_sampling {option}`"
        return read_record(path, _KIND, _FORMAT_VERSION, cls, cure=cure)


def _variance(values: Sequence[float]) -> float:
    """Of a sample of at least two."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
