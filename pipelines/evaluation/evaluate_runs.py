"""Several runs evaluated one after the other, and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from pipelines.cli.echo import say
from pipelines.data.location import DataLocation
from pipelines.evaluation.comparison import write_comparison
from pipelines.evaluation.conditions import (
    check_networks_folder,
    conditions,
    expected_networks,
)
from pipelines.evaluation.evaluate_run import evaluate_run
from pipelines.evaluation.loaded_run import load_run
from pipelines.evaluation.metrics.feature_networks import download_inception
from pipelines.evaluation.record import EVALUATION_FILE, Evaluation, EvaluationConditions
from pipelines.evaluation.settings import EvaluationSettings
from pipelines.evaluation.table import to_markdown, to_text
from pipelines.files.atomic import refuse_existing, refuse_unwritable, write_text
from pipelines.report.page import write_report
from pipelines.runs.directory import RunDirectory
from pipelines.training.device import choose_device

TABLE_FILE = "evaluation.md"


def evaluate_runs(
    directories: Sequence[RunDirectory],
    settings: EvaluationSettings,
    *,
    location: DataLocation,
    batch_size: int,
    inception: bool,
    out: Path | None,
    device_name: str,
) -> None:
    """Evaluates runs; of several, only those not yet evaluated so, and writes a comparison.

    Args:
        directories: Finished runs, each once.
        settings: What is measured.
        location: Where their images are now.
        batch_size: Samples made at once.
        inception: Whether to download the weights of FID's Inception v3 first.
        out: New directory for the comparison; None for one run.
        device_name: As `choose_device`.

    Raises:
        FileExistsError: `out` exists.
        FileNotFoundError: A part of a run is missing.
        ValueError: A run is damaged, or cannot be evaluated so.
        OSError: An output cannot be written, or the weights cannot be downloaded.
    """
    if out is not None:
        refuse_existing(out)
        refuse_unwritable(out)
    device = choose_device(device_name)
    if inception:
        download_inception()
    known = [_agreeing(directory, settings) if out else None for directory in directories]
    for directory, evaluation in zip(directories, known, strict=True):
        if evaluation is None:
            refuse_unwritable(directory.path)
            check_networks_folder(directory)
    evaluations = [
        evaluation or _evaluate(directory, settings, location, batch_size, device)
        for directory, evaluation in zip(directories, known, strict=True)
    ]
    if out is not None:
        say(f"wrote {write_comparison(evaluations, out)}")


def _agreeing(directory: RunDirectory, settings: EvaluationSettings) -> Evaluation | None:
    """The run's evaluation, if it is there and was made with these settings and these models."""
    path = directory.path / EVALUATION_FILE
    if not path.exists():
        return None
    try:
        evaluation = Evaluation.read(path)
    except ValueError as error:
        say(f"{error}; evaluating {directory.path} again")
        return None
    networks = expected_networks(directory)
    wanted = conditions(directory, settings, networks)
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
    directory: RunDirectory,
    settings: EvaluationSettings,
    location: DataLocation,
    batch_size: int,
    device: torch.device,
) -> Evaluation:
    """Evaluates a run, writes and prints the result; evaluations of one run take turns."""
    with directory.owned("measured", take_turns=True):
        say(f"evaluating {directory.path}")
        run = load_run(directory, settings, device, location)
        evaluation = evaluate_run(run, settings, batch_size=batch_size)
        path = directory.path / EVALUATION_FILE
        evaluation.write(path)
        write_text(directory.path / TABLE_FILE, to_markdown(evaluation))
        say(to_text(evaluation))
        report = write_report(directory.path, test=run.splits.test)
        say(f"wrote {path}, {TABLE_FILE} and {report}")
        return evaluation
