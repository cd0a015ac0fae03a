"""What an evaluation found: figures that explain themselves, as one JSON file.

The command writes it, the table, the report and the comparison of runs read it; none of them knows
how a figure was measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pipelines.atomic_files import write_text
from pipelines.run_dir import RunDirectory

EVALUATION_FILE = "evaluation.json"
_FORMAT_VERSION = 1

Group: TypeAlias = Literal["reconstruction", "generation", "memorisation", "prior"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A figure measured in the same way on something known, to read another figure by."""

    label: str
    """What it was measured on, e.g. `train against test`."""
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One number, what it means, and what to hold it against."""

    group: Group
    name: str
    """Key that stays the same from version to version, e.g. `psnr`."""
    label: str
    """What a table calls it, e.g. `PSNR`."""
    value: float
    unit: str = ""
    """`dB`, `bits`, `%` and the like; empty for a pure number."""
    better: Literal["higher", "lower", "neither"]
    explanation: str
    """One sentence for a reader who does not know the measure."""
    num_images: int
    """How many images (of each side) it was measured on."""
    spread: float | None = None
    """Standard deviation over repetitions (seeds or disjoint subsets); None where there was one."""
    repetitions: int = 1
    """How many measurements `value` is the mean of."""
    references: tuple[Reference, ...] = ()
    """The floor, and whatever else it is to be read beside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """All figures of a run, and how they were come by."""

    run: str
    """Name of the run directory."""
    settings: dict[str, Any]
    """The options of the command that decide the figures, JSON-ready."""
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
    """What was not measured and why, and what to bear in mind, one sentence each."""
    alarms: tuple[str, ...] = ()
    """What is wrong with the run, one sentence each: to be read before any figure."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall clock of each part of the evaluation."""
    environment: dict[str, str] = field(default_factory=dict)
    """Versions and machine."""

    def find(self, name: str) -> Figure | None:
        """The figure of that name, or None."""
        return next((figure for figure in self.figures if figure.name == name), None)

    def write(self, path: Path) -> None:
        """Writes the record, atomically; an older one is replaced."""
        record = {"format_version": _FORMAT_VERSION, **_without_infinities(asdict(self))}
        write_text(path, json.dumps(record, indent=2, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """Reads what `write` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged or of another version.
        """
        if not path.exists():
            raise FileNotFoundError(
                f"an evaluated run is required, but {path} does not exist: evaluate the run with "
                f"`python -m pipelines.evaluate {RunDirectory(path.parent).option}`"
            )
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record.pop("format_version") != _FORMAT_VERSION:
                raise ValueError("its format version is unknown")
            record["figures"] = tuple(_figure(values) for values in record["figures"])
            record["notes"] = tuple(record["notes"])
            record["alarms"] = tuple(record.get("alarms", ()))
            return cls(**record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): evaluate the run again with "
                f"`python -m pipelines.evaluate {RunDirectory(path.parent).option}`"
            ) from error


def _figure(values: Mapping[str, Any]) -> Figure:
    values = dict(values)
    if values.keys() != {f.name for f in fields(Figure)}:
        raise ValueError("a figure has other fields")
    references = tuple(
        Reference(label=str(r["label"]), value=_number(r["value"])) for r in values["references"]
    )
    return Figure(**{**values, "value": _number(values["value"]), "references": references})


def _number(value: float | str) -> float:
    """JSON holds no infinities: they are written as words."""
    return float(value)


def _without_infinities(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(item) for item in value]
    return value
