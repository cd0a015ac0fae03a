"""Everything a report says of a run in numbers and words, read from its directory."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.data.config import parse_source
from pipelines.data.data_record import DataRecord
from pipelines.evaluation.record import EVALUATION_FILE, Evaluation
from pipelines.report.numbers import by
from pipelines.runs.config import RunConfig
from pipelines.runs.directory import RUNS, RunDirectory
from pipelines.training.metrics_log import MetricsRow, read_metrics
from pipelines.tuning.record import TUNING_FILE, SamplingTuning
from stage1_vqvae.code_dump import read_code_dump
from stage1_vqvae.model import VQVAE
from stage2_prior.base import CodePrior
from stage2_prior.grids import GridSpec
from stage2_prior.pretrained import load_prior

# What each stage keeps its best weights by; lower is better.
MONITORS = {"vqvae": "loss", "prior": "bits_per_code"}


@dataclass(frozen=True, slots=True)
class Phase:
    """One training: the rows of the metrics file that belong to it."""

    name: str
    """`vqvae` or `prior`."""
    rows: tuple[MetricsRow, ...]

    def points(self, kind: str, metric: str) -> list[tuple[float, float]]:
        """(step, value) of a metric in the rows of a kind; without values that are not finite."""
        return [
            (row.step, value)
            for row in self.rows
            if row.kind == kind and (value := row.values.get(metric)) is not None
        ]

    @property
    def test(self) -> dict[str, float]:
        """Figures of the finished model on the test split; empty where there are none."""
        found = [row.values for row in self.rows if row.kind == "test"]
        values = found[-1] if found else {}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def best_step(self) -> int | None:
        """The step whose weights were the best on the validation split."""
        points = self.points("validation", MONITORS[self.name])
        return int(min(points, key=lambda point: point[1])[0]) if points else None

    @property
    def last(self) -> MetricsRow | None:
        """The newest row: how far the training came, and in what time."""
        return self.rows[-1] if self.rows else None


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A run; what it does not have (yet) is None."""

    path: Path
    config: RunConfig
    data: DataRecord
    """What was found in the data."""
    phases: dict[str, Phase]
    """By name, `vqvae` and `prior`."""
    vqvae: VQVAE | None
    prior: CodePrior | None
    code_counts: tuple[NDArray[np.int64], ...] | None
    """Per grid (K,): how often each code occurs in the test split."""
    evaluation: Evaluation | None
    problems: tuple[str, ...]
    """What of the evaluation is there but could not be read, one sentence each."""
    tuning: SamplingTuning | None
    """Sampling settings that were tried."""
    tuning_problem: str | None
    """Why they could not be read, if they are there."""

    @property
    def name(self) -> str:
        """Of the run directory."""
        return self.path.resolve().name

    @property
    def option(self) -> str:
        """`--run runs/NAME` as a reader of the page would type it, wherever the run lies here."""
        return f"--run {shlex.quote(f'{RUNS}/{self.name}')}"

    @property
    def source(self) -> str:
        """The image set; of a path, which is nobody else's business, the last part."""
        kind, path = parse_source(self.config.data.source)
        return kind if path is None else f"{kind}:{path.resolve().name}"

    def shareable(self, sentence: str) -> str:
        """A sentence without the paths of this machine."""
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
    def class_names(self) -> tuple[str, ...]:
        """By label; empty without labels."""
        return self.data.class_names

    @property
    def train_images_per_class(self) -> tuple[int, ...]:
        """By label; empty without labels."""
        return self.data.train_images_per_class

    @property
    def grids(self) -> tuple[GridSpec, ...]:
        """Of the codes; empty as long as stage one is not finished."""
        if self.vqvae is None:
            return ()
        pairs = zip(self.vqvae.grid_shapes, self.vqvae.codebook_sizes, strict=True)
        return tuple(GridSpec(height, width, size) for (height, width), size in pairs)


def read_run(path: Path) -> RunRecord:
    """Reads what there is of a run, with both models on the CPU.

    Raises:
        FileNotFoundError: `path` is no run directory.
        ValueError: Its config, a model or its codes are damaged, or do not belong together.
    """
    directory = RunDirectory(path)
    config, data = directory.config(), directory.data()
    rows = read_metrics(directory.metrics) if directory.metrics.exists() else []
    vqvae = VQVAE.from_pretrained(directory.vqvae) if directory.vqvae.exists() else None
    prior = load_prior(directory.prior) if directory.prior.exists() else None
    models: dict[str, VQVAE | CodePrior | None] = {"vqvae": vqvae, "prior": prior}
    evaluation, problems = None, []
    file = directory.path / EVALUATION_FILE
    if file.exists():
        try:
            evaluation = Evaluation.read(file)
            made_with = evaluation.conditions
            recorded = {"vqvae": made_with.vqvae, "prior": made_with.prior}
            _check_models(EVALUATION_FILE, recorded, models)
        except (OSError, ValueError) as error:  # the rest of the report is worth having
            evaluation = None
            problems.append(f"{error}")
    tuning, tuning_problem = None, None
    tuning_file = directory.path / TUNING_FILE
    if tuning_file.exists():
        try:
            found = SamplingTuning.read(tuning_file)
            _check_models(TUNING_FILE, {"vqvae": found.vqvae, "prior": found.prior}, models)
            tuning = found
        except (OSError, ValueError) as error:
            tuning_problem = f"{error}"
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
        problems=tuple(problems),
        tuning=tuning,
        tuning_problem=tuning_problem,
    )


def parameters(model: VQVAE | CodePrior) -> int:
    """How many numbers gradient descent trains."""
    return sum(p.numel() for p in model.parameters())


def classes_of(record: RunRecord) -> str:
    """`10 classes` or `no labels`."""
    count = record.data.num_classes
    return "no labels" if count is None else f"{count} class{'es' if count != 1 else ''}"


def describe_grids(grids: tuple[GridSpec, ...]) -> str:
    """`7 by 7 codes of 512`; equal grids are counted."""
    counted = Counter(f"{by(g.height, g.width)} codes of {g.codebook_size:,}" for g in grids)
    return " + ".join(f"{n} times ({one})" if n > 1 else one for one, n in counted.items())


def _check_models(
    file: str, recorded: Mapping[str, str], models: Mapping[str, VQVAE | CodePrior | None]
) -> None:
    """Makes sure that metrics are of these models.

    Raises:
        ValueError: They are of others.
    """
    for name, model in models.items():
        found = "" if model is None else model.weights_hash()
        if not found.startswith(recorded[name]):
            raise ValueError(
                f"{file} is of another {name} than the run has now, so its metrics are left out: "
                "measure the run again"
            )


def _code_counts(path: Path) -> tuple[NDArray[np.int64], ...]:
    dump = read_code_dump(path)
    return tuple(
        np.bincount(grid.numpy().ravel(), minlength=size)
        for grid, size in zip(dump.splits["test"].codes, dump.codebook_sizes, strict=True)
    )
