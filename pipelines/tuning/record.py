"""Sampling settings that were tried, with their distances: as one JSON file, and as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.files.records import parse_object, read_record, write_record
from pipelines.runs.directory import RunDirectory
from stage2_prior.sampling.settings import SamplingSettings

_KIND, _FORMAT_VERSION = "tuning", 3
_PLAIN = SamplingSettings()
_MAX_DISTANCE = 1e100  # its square does not overflow
HEADING = f"  {'temperature':>11}  {'guidance':>8}  {'KD':>9}  {'spread':>9}  {'right class':>11}"


@dataclass(frozen=True)
class MeasuredSettings:
    """Sampling settings, and the distances of their samples from held-out images."""

    settings: SamplingSettings
    distances: tuple[float, ...]
    """Kernel distance of each set of samples; unbiased, so it may be below 0."""
    agreement: float | None
    """Share of the samples that a classifier assigns to their label; None without a classifier."""

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
    metric: str
    """Label of the distance, e.g. `KD-classifier`."""
    feature_network: str
    """Hash of the network in whose features images are compared."""
    num_images: int
    """Validation images."""
    images_per_set: int
    """Samples in each set."""
    seed: int
    """Of the samples."""
    floor: float
    """Distance of training images from the validation images."""
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

    @property
    def chosen(self) -> MeasuredSettings:
        """Temperature 1 without guidance, unless the nearest are significantly nearer.

        So noise does not move samples away from what the model was trained for. What all settings
        have in common, such as a top_p, was given.
        """
        plain = (result for result in self.within_noise if _is_plain(result.settings))
        return self.nearest if _is_plain(self.nearest.settings) else next(plain, self.nearest)

    @property
    def settings(self) -> SamplingSettings:
        """The chosen settings, for any number of samples."""
        return _sampling(self.chosen.settings)

    def write(self, path: Path) -> None:
        """Writes the record, atomically; an older one is replaced."""
        write_record(path, _KIND, _FORMAT_VERSION, self)

    @classmethod
    def read(cls, path: Path) -> SamplingTuning:
        """Reads what `write` wrote."""
        option = RunDirectory(path.parent).option
        cure = f"try again with `python -m pipelines.tune_sampling {option}`"
        return read_record(path, _KIND, _FORMAT_VERSION, cls, cure=cure)


def tuned_settings(directory: RunDirectory) -> SamplingSettings | None:
    """Returns the settings chosen for a run's models as they are now, or None."""
    if not directory.tuning.exists():
        return None
    tuning = SamplingTuning.read(directory.tuning)
    known = (tuning.vqvae, tuning.prior)
    present = tuple(_recorded_hash(model) for model in (directory.vqvae, directory.prior))
    return tuning.settings if present == known else None


def describe_choice(tuning: SamplingTuning) -> str:
    """Describes the best settings, and others that do not differ from them significantly."""
    nearest = tuning.nearest
    words = f"nearest: {describe_settings(nearest.settings)}"
    if nearest.spread is None:
        return words + "; one set shows no noise: --sets 2 does"
    others = "; ".join(describe_settings(result.settings) for result in tuning.within_noise)
    words += f"; within noise: {others}" if others else ""
    return words + ("; chosen: " + describe_settings(tuning.settings) if others else "")


def table_row(result: MeasuredSettings) -> str:
    """Formats settings as one line under `HEADING`."""
    spread = "-" if result.spread is None else f"{result.spread:.3g}"
    agreement = "-" if result.agreement is None else f"{result.agreement:.1%}"
    return (
        f"  {result.settings.temperature:>11g}  {result.settings.guidance_scale:>8g}  "
        f"{result.distance:>9.3g}  {spread:>9}  {agreement:>11}"
    )


def arguments(settings: SamplingSettings) -> str:
    """Formats settings as options of `sample` and `evaluate`, each with a space before."""
    return "".join(
        f" --{name.replace('_', '-')} {value}" for name, value in _differing(settings).items()
    )


def describe_settings(settings: SamplingSettings) -> str:
    """Formats settings in words: the temperature, the guidance and what is no default."""
    values = {"temperature": settings.temperature, "guidance_scale": settings.guidance_scale}
    values |= _differing(settings)
    return ", ".join(
        f"{name.replace('_', ' ')} {value:g}"
        if isinstance(value, float)
        else f"{name.replace('_', ' ')} {value}"
        for name, value in values.items()
    )


def _differing(settings: SamplingSettings) -> dict[str, Any]:
    """Returns what is no default, without `compile`, which depends on the number of samples."""
    defaults = asdict(_PLAIN)
    values = asdict(_sampling(settings))
    return {name: value for name, value in values.items() if value != defaults[name]}


def _is_plain(settings: SamplingSettings) -> bool:
    return settings.temperature == settings.guidance_scale == 1


def _sampling(settings: SamplingSettings) -> SamplingSettings:
    return replace(settings, compile=_PLAIN.compile)


def _recorded_hash(model: Path) -> Any:
    """Returns the hash of the weights that a model's config has; loading it checks it."""
    try:
        return parse_object((model / "config.json").read_bytes()).get("weights_sha256")
    except (OSError, ValueError):
        return None


def _variance(values: Sequence[float]) -> float:
    """Computes the unbiased variance of at least two values."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
