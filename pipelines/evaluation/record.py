"""The record of an evaluation: metrics with their explanations, as one JSON file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pipelines.evaluation.settings import EvaluationSettings
from pipelines.files.records import AnyFloat, read_record, to_json, write_record
from pipelines.runs.directory import RunDirectory

EVALUATION_FILE = "evaluation.json"
_KIND, _FORMAT_VERSION = "evaluation", 3

Group: TypeAlias = Literal["reconstruction", "generation", "memorisation", "prior"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """The same metric of other images, to compare with."""

    label: str
    """What it was measured on, e.g. `train against test`."""
    value: AnyFloat


@dataclass(frozen=True, slots=True)
class Definition:
    """Name, unit and meaning of a metric."""

    group: Group
    name: str
    """Key that stays the same from version to version, e.g. `psnr`."""
    label: str
    """Name in tables, e.g. `PSNR`."""
    unit: str
    """`dB`, `bits`, `%` and the like; empty for a pure number."""
    better: Literal["higher", "lower", "neither"]
    explanation: str
    """One sentence for a reader who does not know the metric."""

    def measured(
        self,
        value: float,
        num_images: int,
        *,
        std: float | None = None,
        repetitions: int = 1,
        references: Mapping[str, float] | None = None,
    ) -> Metric:
        """Returns the metric with a value, see `Metric`; `references` are values by label."""
        definition = {f.name: getattr(self, f.name) for f in fields(Definition)}
        return Metric(
            **definition,
            value=value,
            num_images=num_images,
            std=std,
            repetitions=repetitions,
            references=tuple(Reference(label=k, value=v) for k, v in (references or {}).items()),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric(Definition):
    """A measured metric.

    Raises:
        ValueError: `num_images` or `repetitions` is below 1.
    """

    value: AnyFloat
    num_images: int
    """Number of images (in each of the compared sets)."""
    std: AnyFloat | None = None
    """Standard deviation over repetitions (seeds or disjoint subsets); None for one repetition."""
    repetitions: int = 1
    """Number of measurements that `value` is the mean of."""
    references: tuple[Reference, ...] = ()
    """The floor first, then other values to compare with."""

    def __post_init__(self) -> None:
        if min(self.num_images, self.repetitions) < 1:
            raise ValueError(
                f"num_images and repetitions must be at least 1, got {self.num_images} and "
                f"{self.repetitions}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConditions:
    """Options, data and weights that an evaluation was made with."""

    settings: EvaluationSettings
    """The options that decide the values."""
    data_fingerprint: str
    """Fingerprint of the run's data."""
    vqvae: str
    """First 16 digits of the `weights_hash` of the VQ-VAE."""
    prior: str
    """First 16 digits of that of the prior."""
    feature_networks: dict[str, str]
    """Hashes of the feature networks by name."""

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values by name, with the options among them."""
        values = to_json(self)
        settings: dict[str, Any] = values.pop("settings")
        return settings | values

    def flat(self) -> dict[str, Any]:
        """Returns those values by names in words, nested ones as `sampling temperature`."""
        return dict(_flat(self.to_dict()))


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        words = name.replace("_", " ")
        if isinstance(value, Mapping):
            yield from ((f"{words} {inner}", deeper) for inner, deeper in _flat(value))
        else:
            yield words, value


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """All metrics of a run and the conditions they were measured under."""

    run: str
    """Name of the run directory."""
    conditions: EvaluationConditions
    metrics: tuple[Metric, ...]
    notes: tuple[str, ...] = ()
    """Why metrics are missing or biased, one sentence each."""
    warnings: tuple[str, ...] = ()
    """Faults of the run, one sentence each."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock time of each part of the evaluation."""
    environment: dict[str, str] = field(default_factory=dict)
    """Versions and machine, see `pipelines.files.environment`."""

    def find(self, name: str) -> Metric | None:
        """Returns the metric of that name, or None."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    def write(self, path: Path) -> None:
        """Writes the record atomically, replacing an older one."""
        write_record(path, _KIND, _FORMAT_VERSION, self)

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """Reads what `write` wrote."""
        option = RunDirectory(path.parent).option
        cure = f"evaluate the run with `python -m pipelines.evaluate {option}`"
        return read_record(path, _KIND, _FORMAT_VERSION, cls, cure=cure)
