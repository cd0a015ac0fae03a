"""What an evaluation found: metrics that explain themselves, as one JSON file.

The command writes it, the table, the report and the comparison of runs read it; none of them knows
how a metric was measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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
    """A metric measured in the same way on something known, to read another metric by."""

    label: str
    """What it was measured on, e.g. `train against test`."""
    value: AnyFloat


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One number, what it means, and what to hold it against.

    Raises:
        ValueError: It was measured on nothing.
    """

    group: Group
    name: str
    """Key that stays the same from version to version, e.g. `psnr`."""
    label: str
    """What a table calls it, e.g. `PSNR`."""
    value: AnyFloat
    unit: str = ""
    """`dB`, `bits`, `%` and the like; empty for a pure number."""
    better: Literal["higher", "lower", "neither"]
    explanation: str
    """One sentence for a reader who does not know the measure."""
    num_images: int
    """How many images (of each side) it was measured on."""
    std: AnyFloat | None = None
    """Standard deviation over repetitions (seeds or disjoint subsets); None where there was one."""
    repetitions: int = 1
    """How many measurements `value` is the mean of."""
    references: tuple[Reference, ...] = ()
    """The floor, and whatever else it is to be read beside."""

    def __post_init__(self) -> None:
        if min(self.num_images, self.repetitions) < 1:
            raise ValueError(
                f"num_images and repetitions must be at least 1, got {self.num_images} and "
                f"{self.repetitions}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConditions:
    """What two evaluations must agree in, so that one need not be made again."""

    settings: EvaluationSettings
    """The options that decide the metrics."""
    data_fingerprint: str
    """Of the run's data."""
    vqvae: str
    """First digits of the `weights_hash` of the model."""
    prior: str
    """The same."""
    feature_networks: dict[str, str]
    """Names of the networks whose features images were compared in, with their hashes."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values by name, the options among them."""
        values = to_json(self)
        settings: dict[str, Any] = values.pop("settings")
        return settings | values


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """All metrics of a run, and how they were come by."""

    run: str
    """Name of the run directory."""
    conditions: EvaluationConditions
    """How it was measured."""
    metrics: tuple[Metric, ...]
    notes: tuple[str, ...] = ()
    """What was not measured and why, and what to bear in mind, one sentence each."""
    warnings: tuple[str, ...] = ()
    """What is wrong with the run, one sentence each: to be read before any metric."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall clock of each part of the evaluation."""
    environment: dict[str, str] = field(default_factory=dict)
    """Versions and machine."""

    def find(self, name: str) -> Metric | None:
        """The metric of that name, or None."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    def write(self, path: Path) -> None:
        """Writes the record, atomically; an older one is replaced."""
        write_record(path, _KIND, _FORMAT_VERSION, self)

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """Reads what `write` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged or of another version.
        """
        option = RunDirectory(path.parent).option
        cure = f"evaluate the run with `python -m pipelines.evaluate {option}`"
        return read_record(path, _KIND, _FORMAT_VERSION, cls, cure=cure)
