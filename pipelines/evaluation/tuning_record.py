"""What a try of sampling settings found, as one JSON file.

The command writes it and the report reads it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.atomic_files import write_text
from pipelines.run_dir import RunDirectory
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
        return math.sqrt(_variance(self.distances)) if len(self.distances) > 1 else None


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
            if len({len(one.distances) for one in measured}) > 1:
                raise ValueError("its settings have different numbers of sets")
            return cls(**_checked(record), measured=measured)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): try again with "
                f"`python -m pipelines.tune_sampling {RunDirectory(path.parent).option}`"
            ) from error


def _variance(values: Sequence[float]) -> float:
    """Of a sample of at least two."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _checked(record: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in ("vqvae", "prior", "feature_network"):
        if not isinstance(record[name], str):
            raise ValueError(f"its {name} is no text")
    for name in ("images_per_set", "seed"):
        if type(record[name]) is not int:
            raise ValueError(f"its {name} is no whole number")
    _number(record["floor"])
    return record


def _measured(values: Mapping[str, Any]) -> MeasuredSettings:
    if not isinstance(values["distances"], list) or not values["distances"]:
        raise ValueError("settings without a list of distances")
    distances = tuple(_number(distance) for distance in values["distances"])
    agreement = values["agreement"]
    return MeasuredSettings(
        SamplingSettings(**values["settings"]),
        distances,
        None if agreement is None else _number(agreement),
    )


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r} stands where a number should")
    return float(value)
