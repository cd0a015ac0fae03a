"""Sampling settings that were tried, with their distances: as one JSON file, and as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipelines.files.records import read_record, write_record
from pipelines.runs.directory import RunDirectory
from stage2_prior.sampling.settings import SamplingSettings

TUNING_FILE = "sampling_tuning.json"
_KIND, _FORMAT_VERSION = "tuning", 2
_MAX_DISTANCE = 1e100  # its square does not overflow
HEADING = f"  {'temperature':>11}  {'guidance':>8}  {'FD':>7}  {'spread':>6}  {'right class':>11}"


@dataclass(frozen=True)
class MeasuredSettings:
    """Sampling settings, and the distances of their samples from held-out images."""

    settings: SamplingSettings
    distances: tuple[float, ...]
    """Frechet distance of each set of samples."""
    agreement: float
    """Share of the samples that a classifier assigns to their label."""

    def __post_init__(self) -> None:
        if not self.distances:
            raise ValueError("distances must be at least one, got none")
        if max(map(abs, self.distances)) > _MAX_DISTANCE:
            raise ValueError(f"distances must be at most {_MAX_DISTANCE}, got {self.distances}")

    @property
    def distance(self) -> float:
        """The mean over the sets."""
        return math.fsum(self.distances) / len(self.distances)

    @property
    def spread(self) -> float | None:
        """The standard deviation over the sets; None with one set."""
        return math.sqrt(_variance(self.distances)) if len(self.distances) > 1 else None


@dataclass(frozen=True, kw_only=True)
class SamplingTuning:
    """All settings that were tried on a run."""

    vqvae: str
    """`weights_hash` of the model."""
    prior: str
    """`weights_hash` of the model."""
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
        if len({len(result.distances) for result in self.measured}) > 1:
            raise ValueError("all settings must have as many distances, got different numbers")

    @property
    def nearest(self) -> MeasuredSettings:
        """The settings of the smallest distance."""
        return min(self.measured, key=lambda result: result.distance)

    @property
    def within_noise(self) -> list[MeasuredSettings]:
        """Others whose distance does not differ significantly from the nearest; none of one set.

        All settings sample with the same random numbers, so distances are compared set by set:
        the mean difference must be more than twice its standard error. The deviation of a
        difference is pooled over all settings, since a few sets of one pair estimate it badly.
        """
        nearest, sets = self.nearest, len(self.nearest.distances)
        others = [result for result in self.measured if result != nearest]
        if sets == 1 or not others:
            return []
        differences = [
            [there - here for there, here in zip(result.distances, nearest.distances, strict=True)]
            for result in others
        ]
        variance = math.fsum(map(_variance, differences)) / len(others)
        limit = 2 * math.sqrt(variance / sets)
        return [
            result
            for result, values in zip(others, differences, strict=True)
            if math.fsum(values) / sets <= limit
        ]

    def write(self, path: Path) -> None:
        """Writes the record, atomically; an older one is replaced."""
        write_record(path, _KIND, _FORMAT_VERSION, self)

    @classmethod
    def read(cls, path: Path) -> SamplingTuning:
        """Reads what `write` wrote."""
        option = RunDirectory(path.parent).option
        cure = f"try again with `python -m pipelines.tune_sampling {option}`"
        return read_record(path, _KIND, _FORMAT_VERSION, cls, cure=cure)


def describe_choice(tuning: SamplingTuning) -> str:
    """Describes the best settings, and others that do not differ from them significantly."""
    nearest = tuning.nearest
    words = f"nearest: {_name(nearest.settings)}"
    if nearest.spread is None:
        return words + "; one set shows no noise: --sets 2 does"
    others = ", ".join(_name(result.settings) for result in tuning.within_noise)
    return words + (f"; within noise: {others}" if others else "")


def table_row(result: MeasuredSettings) -> str:
    """Formats settings as one line under `HEADING`."""
    spread = "-" if result.spread is None else f"{result.spread:.3f}"
    return (
        f"  {result.settings.temperature:>11g}  {result.settings.guidance_scale:>8g}  "
        f"{result.distance:>7.3f}  {spread:>6}  {result.agreement:>11.1%}"
    )


def arguments(settings: SamplingSettings) -> str:
    """Formats settings as options of `sample` and `evaluate`, each with a space before."""
    values = asdict(replace(settings, compile="off"))
    defaults = asdict(SamplingSettings())
    return "".join(
        f" --{name.replace('_', '-')} {value}"
        for name, value in values.items()
        if value != defaults[name]
    )


def _name(settings: SamplingSettings) -> str:
    return f"temperature {settings.temperature:g} with guidance {settings.guidance_scale:g}"


def _variance(values: Sequence[float]) -> float:
    """Computes the unbiased variance of at least two values."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
