"""Everything but the images that a report shows of a run, read from its directory."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipelines.data.config import parse_source
from pipelines.data.data_record import DataRecord
from pipelines.evaluation.record import EVALUATION_FILE, Evaluation
from pipelines.report.formatting import format_size
from pipelines.runs.codes import grid_specs
from pipelines.runs.config import RunConfig
from pipelines.runs.directory import RUNS, RunDirectory
from pipelines.runs.overfitting import MONITORS, PhaseName
from pipelines.training.metrics_log import MetricsRow, read_metrics
from pipelines.tuning.record import SamplingTuning
from stage1_vqvae.base import ImageTokenizer
from stage1_vqvae.code_dump import read_code_dump
from stage1_vqvae.pretrained import load_tokenizer
from stage2_prior.base import CodePrior
from stage2_prior.grids import GridSpec
from stage2_prior.pretrained import load_prior
from stage2_prior.sampling.settings import SamplingSettings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Phase:
    """One training: the rows of the metrics file that belong to it."""

    name: PhaseName
    """`vqvae` or `prior`."""
    rows: tuple[MetricsRow, ...]

    def points(self, kind: str, metric: str) -> list[tuple[float, float]]:
        """Returns (step, value) of a metric in the rows of a kind, without values not finite."""
        return [
            (row.step, value)
            for row in self.rows
            if row.kind == kind and (value := row.values.get(metric)) is not None
        ]

    @property
    def test(self) -> dict[str, float]:
        """Metrics of the finished model on the test split; empty before it is measured."""
        found = [row.values for row in self.rows if row.kind == "test"]
        values = found[-1] if found else {}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def best_step(self) -> int | None:
        """The step whose weights were the best on the validation split."""
        points = self.points("validation", MONITORS[self.name])
        return int(min(points, key=lambda point: point[1])[0]) if points else None


@dataclass(frozen=True, eq=False)
class RunRecord:
    """Record of a run; missing parts are None."""

    path: Path
    config: RunConfig
    data: DataRecord
    """Shape, splits and classes of the data."""
    phases: dict[str, Phase]
    """By name, `vqvae` and `prior`."""
    vqvae: ImageTokenizer | None
    prior: CodePrior | None
    code_counts: tuple[NDArray[np.int64], ...] | None
    """Per grid (K,): how often each code occurs in the test split."""
    evaluation: Evaluation | None
    evaluation_problem: str | None
    """Why it could not be used."""
    tuning: SamplingTuning | None
    """Sampling settings that were measured."""
    tuning_problem: str | None
    """Why it could not be used."""

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.path.resolve().name

    @property
    def option(self) -> str:
        """The option `--run runs/NAME`, without the run's path on this machine."""
        return f"--run {shlex.quote(f'{RUNS}/{self.name}')}"

    @property
    def source(self) -> str:
        """The image set, without its path on this machine."""
        kind, path = parse_source(self.config.data.source)
        return kind if path is None else f"{kind}:{path.resolve().name}"

    def shareable(self, sentence: str) -> str:
        """Returns a sentence without the paths of this machine."""
        _, path = parse_source(self.config.data.source)
        root = self.config.data.root
        known = {self.path: f"{RUNS}/{self.name}", root: root.resolve().name}
        known |= {} if path is None else {path: path.resolve().name}
        # The longest first: one may lie within another.
        named = {str(p): name for q, name in known.items() for p in (q.resolve(), q.absolute(), q)}
        for local in sorted(named, key=len, reverse=True):
            if os.sep in local:
                sentence = sentence.replace(local, named[local])
        return sentence

    @property
    def settings(self) -> SamplingSettings:
        """How `sample` samples unless told otherwise."""
        return SamplingSettings() if self.tuning is None else self.tuning.settings

    @property
    def grids(self) -> tuple[GridSpec, ...]:
        """Grids of the codes; empty before stage one is finished."""
        return () if self.vqvae is None else grid_specs(self.vqvae)


def read_run(path: Path) -> RunRecord:
    """Reads a finished or unfinished run, with both models on the CPU."""
    directory = RunDirectory(path)
    config, data = directory.config(), directory.data()
    rows = read_metrics(directory.metrics) if directory.metrics.exists() else []
    vqvae = load_tokenizer(directory.vqvae) if directory.vqvae.exists() else None
    prior = load_prior(directory.prior) if directory.prior.exists() else None
    hashes = [None if model is None else model.weights_hash() for model in (vqvae, prior)]
    evaluation, evaluation_problem = _read_measured(
        directory.path / EVALUATION_FILE,
        Evaluation.read,
        attrgetter("conditions.vqvae", "conditions.prior"),
        hashes,
    )
    tuning, tuning_problem = _read_measured(
        directory.tuning,
        SamplingTuning.read,
        attrgetter("vqvae", "prior"),
        hashes,
    )
    return RunRecord(
        path=directory.path,
        config=config,
        data=data,
        phases={
            name: Phase(name, tuple(row for row in rows if row.phase == name)) for name in MONITORS
        },
        vqvae=vqvae,
        prior=prior,
        code_counts=_code_counts(directory.codes) if directory.codes.exists() else None,
        evaluation=evaluation,
        evaluation_problem=evaluation_problem,
        tuning=tuning,
        tuning_problem=tuning_problem,
    )


def classes_of(record: RunRecord) -> str:
    """Formats `10 classes` or `no labels`."""
    count = record.data.num_classes
    return "no labels" if count is None else f"{count} class{'es' if count != 1 else ''}"


def describe_grids(grids: tuple[GridSpec, ...]) -> str:
    """Formats grids and their codebook sizes; equal grids are counted."""
    counted = Counter(
        f"{format_size(grid.height, grid.width)} codes of {grid.codebook_size:,}" for grid in grids
    )
    return " + ".join(f"{n} times ({one})" if n > 1 else one for one, n in counted.items())


def _read_measured(
    path: Path,
    read: Callable[[Path], T],
    recorded: Callable[[T], tuple[str, str]],
    hashes: Sequence[str | None],
) -> tuple[T | None, str | None]:
    """Reads a record of measurements; returns it, or why it cannot be used.

    `recorded` returns the first digits of the hashes of the measured VQ-VAE and prior, which must
    be those of `hashes`. The rest of the report does not depend on the record.
    """
    if not path.exists():
        return None, None
    try:
        found = read(path)
    except (OSError, ValueError) as error:
        return None, f"{error}"
    for name, digits, current in zip(("vqvae", "prior"), recorded(found), hashes, strict=True):
        if current is None or not current.startswith(digits):
            return None, (
                f"{path.name} is of another {name} than the run has now, so its metrics are left "
                "out: measure the run again"
            )
    return found, None


def _code_counts(path: Path) -> tuple[NDArray[np.int64], ...]:
    dump = read_code_dump(path)
    return tuple(
        np.bincount(grid.numpy().ravel(), minlength=size)
        for grid, size in zip(dump.splits["test"].codes, dump.codebook_sizes, strict=True)
    )
