"""`python -m pipelines.evaluate`: how good a run is, with the floor beside every figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from pipelines.cli.command import parse, require_positive, run_command, say
from pipelines.data.location import DataLocation
from pipelines.evaluation.record import (
    EVALUATION_FILE,
    Evaluation,
    EvaluationConditions,
)
from pipelines.evaluation.settings import EvaluationSettings
from pipelines.files.atomic import refuse_existing, refuse_unwritable, write_text
from pipelines.runs.directory import LATEST, RunDirectory

if TYPE_CHECKING:
    import torch

TABLE_FILE = "evaluation.md"


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateOptions:
    """Measure finished runs on the test split: reconstruction, samples, memorisation, prior.

    Writes evaluation.json and evaluation.md into the run directory, in place of those of an earlier
    evaluation, and renews its report. The classifier whose features images are compared in is
    trained once and kept beside the run, in .feature-networks.
    """

    run: tuple[Path, ...] = (LATEST,)
    """Run directories. Of several, those evaluated with these options already are not evaluated
    again, and one table and one figure over all of them are written."""
    evaluation: Annotated[EvaluationSettings, tyro.conf.arg(name="")] = field(
        default_factory=EvaluationSettings
    )
    """What is measured."""
    data: DataLocation = field(default_factory=DataLocation)
    """Where the images of the runs are now."""
    batch_size: int = 256
    """Samples drawn at once; memory grows with it."""
    download_inception: bool = False
    """Download the weights of FID's Inception v3 (96 MB) where they are not in torch's cache. With
    them and torch-fidelity (extra `fid`) FID and KID are measured too, on a CPU by tens of minutes
    longer."""
    out: Path | None = None
    """With several runs, a new directory for the comparison; None takes comparison-NAMES beside
    the first run."""
    device: str = "auto"
    """Where to compute: auto (the first of cuda, mps, cpu), cpu, mps, cuda or cuda:N."""


def main() -> None:
    """Reads the options and evaluates."""
    options = parse(EvaluateOptions)
    directories = [RunDirectory(path) for path in options.run]
    if not directories:
        raise ValueError("at least one run is required after --run, got none")
    for directory in directories:
        directory.config()  # refuses early what is no run
    _refuse_twice(directories)
    require_positive(options, "batch_size")
    several = len(directories) > 1
    if options.out is not None and not several:
        raise ValueError(
            f"--out is for the comparison of several runs, got one run: its evaluation goes to "
            f"{directories[0].path}"
        )
    names = "-".join(directory.path.resolve().name for directory in directories)
    out = options.out or directories[0].path.parent / f"comparison-{names}"
    if several:
        refuse_existing(out)
        refuse_unwritable(out)

    from pipelines.evaluation.conditions import check_networks_folder
    from pipelines.training.device import choose_device

    device = choose_device(options.device)
    if options.download_inception:
        from pipelines.evaluation.metrics.feature_networks import download_inception

        download_inception()
    known = [_agreeing(directory, options) if several else None for directory in directories]
    for directory, evaluation in zip(directories, known, strict=True):
        if evaluation is None:
            refuse_unwritable(directory.path)
            check_networks_folder(directory)
    evaluations = [
        evaluation or _evaluate(directory, options, device)
        for directory, evaluation in zip(directories, known, strict=True)
    ]
    if several:
        from pipelines.evaluation.comparison import write_comparison

        say(f"wrote {write_comparison(evaluations, out)}")


def _refuse_twice(directories: Sequence[RunDirectory]) -> None:
    seen: set[Path] = set()
    for directory in directories:
        path = directory.path.resolve()
        if path in seen:
            raise ValueError(
                f"every run must be named once after --run, got {directory.path} twice: leave one "
                "of them out"
            )
        seen.add(path)


def _agreeing(directory: RunDirectory, options: EvaluateOptions) -> Evaluation | None:
    """The run's evaluation, if it is there and was made with these options and these models."""
    from pipelines.evaluation.conditions import conditions, expected_networks

    path = directory.path / EVALUATION_FILE
    if not path.exists():
        return None
    try:
        evaluation = Evaluation.read(path)
    except ValueError as error:
        say(f"{error}; evaluating {directory.path} again")
        return None
    networks = expected_networks(directory)
    wanted = conditions(directory, options.evaluation, networks)
    recorded = _undecided(evaluation.conditions, wanted)
    if replace(recorded, feature_networks=networks) != wanted:
        say(f"{path} was made with other options or models: evaluating {directory.path} again")
        return None
    if recorded != wanted:
        say(f"{path} was made with other feature networks: evaluating {directory.path} again")
        return None
    say(f"taking the figures of {path}")
    return replace(evaluation, run=directory.path.resolve().name)  # it may have been renamed


def _undecided(
    recorded: EvaluationConditions, wanted: EvaluationConditions
) -> EvaluationConditions:
    """What was recorded, with `compile` as it is wanted where that leaves the choice open."""
    if wanted.settings.sampling.compile != "auto":
        return recorded
    sampling = replace(recorded.settings.sampling, compile="auto")
    return replace(recorded, settings=replace(recorded.settings, sampling=sampling))


def _evaluate(
    directory: RunDirectory, options: EvaluateOptions, device: torch.device
) -> Evaluation:
    """Evaluates a run, writes what was found, and shows it; evaluations of one run take turns."""
    with directory.owned("measured", take_turns=True):
        return _evaluate_owned(directory, options, device)


def _evaluate_owned(
    directory: RunDirectory, options: EvaluateOptions, device: torch.device
) -> Evaluation:
    from pipelines.evaluation.evaluate_run import evaluate_run
    from pipelines.evaluation.loaded_run import load_run
    from pipelines.evaluation.table import to_markdown, to_text
    from pipelines.report.page import write_report

    say(f"evaluating {directory.path}")
    run = load_run(directory, options.evaluation, device, options.data)
    evaluation = evaluate_run(run, options.evaluation, batch_size=options.batch_size)
    path = directory.path / EVALUATION_FILE
    evaluation.write(path)
    write_text(directory.path / TABLE_FILE, to_markdown(evaluation))
    say(to_text(evaluation))
    report = write_report(directory.path, test=run.splits.test)
    say(f"wrote {path}, {TABLE_FILE} and {report}")
    return evaluation


if __name__ == "__main__":
    run_command(main)
