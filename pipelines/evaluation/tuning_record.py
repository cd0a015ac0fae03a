"""What a try of sampling settings found, as one JSON file.

The command writes it and the report reads it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.atomic_files import write_text
from stage2_prior.config import SamplingSettings

TUNING_FILE = "sampling_tuning.json"
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class MeasuredSettings:
    """One way to sample, and how near its samples come to images that were kept back."""

    settings: SamplingSettings
    distances: tuple[float, ...]
    """Frechet distance of each set of samples."""
    agreement: float | None
    """Part of the samples that a classifier takes for the class they were drawn for; None where
    the prior knows no classes."""

    @property
    def distance(self) -> float:
        """The mean over the sets."""
        return math.fsum(self.distances) / len(self.distances)

    @property
    def spread(self) -> float | None:
        """The standard deviation over the sets; None of one."""
        number = len(self.distances)
        if number == 1:
            return None
        squares = math.fsum((distance - self.distance) ** 2 for distance in self.distances)
        return math.sqrt(squares / (number - 1))


@dataclass(frozen=True, kw_only=True)
class SamplingTuning:
    """All settings that were tried on a run, and on what."""

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

    @property
    def nearest(self) -> MeasuredSettings:
        """The settings of the smallest distance."""
        return min(self.measured, key=lambda one: one.distance)

    @property
    def as_near(self) -> list[MeasuredSettings]:
        """Others that are farther by less than the spread of the nearest."""
        nearest = self.nearest
        return [
            one
            for one in self.measured
            if one is not nearest and one.distance - nearest.distance < (nearest.spread or 0)
        ]

    def write(self, path: Path) -> None:
        """Writes the record, atomically; an older one is replaced."""
        record = {"format_version": _FORMAT_VERSION, **asdict(self)}
        write_text(path, json.dumps(record, indent=2, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> SamplingTuning:
        """Reads what `write` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged or of another version.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record.pop("format_version") != _FORMAT_VERSION:
                raise ValueError("its format version is unknown")
            measured = tuple(_measured(values) for values in record.pop("measured"))
            if not measured:
                raise ValueError("it holds no settings")
            return cls(**record, measured=measured)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): try again with "
                f"`python -m pipelines.tune_sampling --run {path.parent}`"
            ) from error


def _measured(values: Mapping[str, Any]) -> MeasuredSettings:
    distances = tuple(float(distance) for distance in values["distances"])
    if not distances:
        raise ValueError("settings without a distance")
    return MeasuredSettings(SamplingSettings(**values["settings"]), distances, values["agreement"])
