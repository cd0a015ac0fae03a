"""Evaluation and comparison of one or several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from pipelines.cli.echo import say
from pipelines.data.location import DataLocation
from pipelines.evaluation.comparison import write_comparison
from pipelines.evaluation.conditions import conditions
from pipelines.evaluation.evaluate_run import evaluate_run
from pipelines.evaluation.loaded_run import load_run
from pipelines.evaluation.metrics.feature_networks import INCEPTION_CHANNELS, download_inception
from pipelines.evaluation.record import EVALUATION_FILE, Evaluation
from pipelines.evaluation.run_networks import check_networks_folder
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
    again: bool,
    out: Path | None,
    device_name: str,
) -> None:
    """Evaluates one run, or those of several that are not yet evaluated, and compares them.

    Args:
        directories: Finished runs, each once.
        settings: What is measured.
        location: Where their images are now.
        batch_size: Samples made at once.
        inception: Whether to download the weights of FID's Inception v3 first.
        again: Of several runs, evaluate those again whose evaluation is damaged or differs.
        out: New directory for the comparison; None for one run.
        device_name: As `choose_device`.
    """
    if out is not None:
        refuse_existing(out)
        refuse_unwritable(out)
    device = choose_device(device_name)
    if inception:
        download_inception()
    known = [
        _recorded(directory, settings, inception=inception, again=again) if out else None
        for directory in directories
    ]
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


def _recorded(
    directory: RunDirectory, settings: EvaluationSettings, *, inception: bool, again: bool
) -> Evaluation | None:
    """Reads the run's evaluation if its options, data and weights are the present ones.

    Returns None if the run has to be evaluated. Refuses a damaged or differing evaluation unless
    `again` is set.
    """
    path = directory.path / EVALUATION_FILE
    if not path.exists():
        return None
    try:
        evaluation = Evaluation.read(path)
    except ValueError as error:
        if again:
            return None
        raise ValueError(f"{error}, or add --again") from error
    recorded = evaluation.conditions
    if settings.sampling.compile == "auto":
        sampling = replace(settings.sampling, compile=recorded.settings.sampling.compile)
        settings = replace(settings, sampling=sampling)
    # Other feature networks are no fault of one evaluation: the comparison lists them.
    present = conditions(directory, settings, recorded.feature_networks).to_dict()
    different = [name for name, value in recorded.to_dict().items() if value != present[name]]
    if (
        inception
        and "inception" not in recorded.feature_networks
        and directory.data().image_shape[0] in INCEPTION_CHANNELS
    ):
        different.append("download_inception")
    if different and not again:
        raise ValueError(
            f"{path} was made with another {', '.join(different)}: add --again to evaluate "
            f"{directory.path} again"
        )
    if different:
        return None
    say(f"taking the metrics of {path}")
    return replace(evaluation, run=directory.path.resolve().name)  # it may have been renamed


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
        report = write_report(directory.path, splits=run.splits)
        say(f"wrote {path}, {TABLE_FILE} and {report}")
        return evaluation
