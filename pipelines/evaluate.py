"""`python -m pipelines.evaluate`: how good a run is, each metric with its floor."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from pipelines.cli.command import parse, run_command
from pipelines.cli.options import Device, require_positive
from pipelines.data.location import DataLocation
from pipelines.evaluation.settings import EvaluationSettings
from pipelines.runs.directory import LATEST, RunDirectory


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateOptions:
    """Measure finished runs on the test split: reconstruction, samples, memorisation, prior.

    Writes evaluation.json and evaluation.md into the run directory, in place of those of an earlier
    evaluation, and renews its report. Images are compared in the features of a network that is
    trained on them once and kept next to the run, in .feature-networks, and for colour images in
    those of EfficientNet where the extra `features` is installed.
    """

    run: tuple[Path, ...] = (LATEST,)
    """Run directories. Of several, those already evaluated with these options are not evaluated
    again, and a comparison of all is written: a table, CSV and a plot."""
    evaluation: Annotated[EvaluationSettings, tyro.conf.arg(name="")] = field(
        default_factory=EvaluationSettings
    )
    """What is measured."""
    data: DataLocation = field(default_factory=DataLocation)
    """Where the images of the runs are now."""
    batch_size: int = 256
    """Samples made at once; memory grows with it."""
    download_inception: bool = False
    """Download the weights of FID's Inception v3 (96 MB) where they are not in torch's cache. With
    them and torch-fidelity (extra `fid`) FID and KID are measured too, on a CPU by tens of minutes
    longer."""
    again: bool = False
    """Of several runs, evaluate those again whose evaluation.json is damaged or was made with other
    options, data or weights."""
    out: Path | None = None
    """With several runs, a new directory for the comparison; None takes comparison-NAMES next
    to the first run."""
    device: Device = "auto"


def main() -> None:
    """Reads the options and evaluates."""
    options = parse(EvaluateOptions)
    directories = [RunDirectory(path) for path in options.run]
    if not directories:
        raise ValueError("at least one run is required after --run, got none")
    for directory in directories:
        directory.config()  # refuses another directory early
    paths = [directory.path.resolve() for directory in directories]
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise ValueError(
                f"every run must be named once after --run, got {directories[i].path} twice: leave "
                "one of them out"
            )
    require_positive(options, "batch_size")
    out = options.out
    if len(directories) == 1 and out is not None:
        raise ValueError(
            f"--out is for the comparison of several runs, got one run: its evaluation goes to "
            f"{directories[0].path}"
        )
    if len(directories) > 1 and out is None:
        names = "-".join(path.name for path in paths)
        out = directories[0].path.parent / f"comparison-{names}"

    from pipelines.evaluation.evaluate_runs import evaluate_runs

    evaluate_runs(
        directories,
        options.evaluation,
        location=options.data,
        batch_size=options.batch_size,
        inception=options.download_inception,
        again=options.again,
        out=out,
        device_name=options.device,
    )


if __name__ == "__main__":
    run_command(main)
