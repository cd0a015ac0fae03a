"""All runs of a sweep: trained, measured, and written into one table."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Literal

import torch

from pipelines.cli.echo import say
from pipelines.data.data_record import DataRecord, data_record
from pipelines.data.image_set import DataSplits
from pipelines.data.load import load_splits
from pipelines.files.atomic import write_text
from pipelines.files.records import to_json
from pipelines.runs.codes import dump_codes
from pipelines.runs.compilation import check_compilation
from pipelines.runs.config import settings_of_all
from pipelines.runs.messages import plan_data, plan_models
from pipelines.runs.stage_one import train_vqvae
from pipelines.runs.stage_two import train_prior
from pipelines.sweeps.directory import SweepRun
from pipelines.sweeps.measurement import measure_prior, measure_stage_one
from pipelines.sweeps.options import SweepOptions
from pipelines.sweeps.plot import save_sweep_plot
from pipelines.sweeps.row import SweepRow
from pipelines.sweeps.table import document, to_csv, to_markdown
from pipelines.training.device import choose_device
from pipelines.training.distributed import (
    agree,
    enter_on_main,
    on_main,
    process_group,
    require_shared,
    world_size,
)
from pipelines.training.precision import resolve_precision


def sweep(options: SweepOptions) -> None:
    """Trains and measures every run that is not finished, and renews the table after each.

    A run that fails is noted in the table, the others go on, and in the end RuntimeError names it.
    With several processes it ends the command at once: only one of them may have noticed, and the
    others would wait for it.
    """
    options.sweep.run.check_processes()
    directory, failures = options.directory, dict[str, str]()
    device = choose_device(options.sweep.run.device)
    check_compilation(options.sweep.run, device)
    with process_group(device), ExitStack() as stack:
        on_main(options.check)
        agree(settings_of_all(options.sweep.to_dict()) | {"resume": options.resume})
        if not options.dry_run:
            require_shared(directory.path)
            stack.enter_context(enter_on_main(directory.owned("trained")))
        splits = load_splits(options.sweep.run.data)
        say(_plan(options, splits))
        if options.dry_run:
            say(json.dumps(options.sweep.to_dict(), indent=2))
            return
        data = data_record(splits)
        agree({"data": to_json(data)}, "give all of them the same images")
        runs = options.runs(on_main(lambda: _begin(options, data, device)))
        write_table = partial(_write_table, options, runs, failures, len(splits.test))
        for number, run in enumerate(runs, 1):
            if on_main(partial(_is_finished, run, with_prior=options.sweep.with_prior)):
                say(f"{run.name}: already finished, in {run.directory.path}")
                continue
            say(f"{run.name}: run {number} of {len(runs)}")
            failure = _train_or_failure(run, options, splits, device)
            if failure is not None:
                failures[run.name] = failure
            on_main(write_table)
        on_main(write_table)
    say(to_markdown(_rows(runs, failures), len(splits.test)).rstrip())
    say(f"table: {directory.markdown}, also as sweep.csv and sweep.png")
    if failures:
        name, failure = next(iter(failures.items()))
        raise RuntimeError(
            f"{len(failures)} of {len(runs)} runs failed, first {name} ({failure}): the table has "
            "the others, and --resume tries the failed ones again"
        )


def _plan(options: SweepOptions, splits: DataSplits) -> str:
    """Describes the data, and what each run trains; builds all models, without memory."""
    lines = [plan_data(options.sweep.run, splits)]
    for run in options.runs():
        vqvae, prior = plan_models(run.config, splits)
        lines.append(f"{run.name}: {vqvae}" + (f"; {prior}" if options.sweep.with_prior else ""))
    return "\n".join(lines)


def _begin(
    options: SweepOptions, data: DataRecord, device: torch.device
) -> Literal["fp32", "bf16"] | None:
    """Begins or re-opens the sweep; returns the number format in place of `auto`."""
    options.check(data)
    stages = (options.sweep.run.vqvae_training, options.sweep.run.prior_training)
    precision = options.directory.precision()
    if precision is None and any(stage.precision == "auto" for stage in stages):
        # Once for all runs: measured for each, it could differ between them.
        precision = resolve_precision("auto", device).name
    options.directory.begin(options.sweep, precision)
    return precision


def _is_finished(run: SweepRun, *, with_prior: bool) -> bool:
    row = run.read_row()
    return row is not None and (row.has("prior") or not with_prior)


def _train_or_failure(
    run: SweepRun, options: SweepOptions, splits: DataSplits, device: torch.device
) -> str | None:
    """Trains a run; returns why it failed, or None."""
    try:
        with enter_on_main(run.directory.owned("trained")):
            _train(run, options, splits, device)
    except (ValueError, RuntimeError, OSError) as error:
        if world_size() > 1:
            raise
        if os.environ.get("TRACEBACK"):
            say(traceback.format_exc())
        failure = " ".join(str(error).split())
        say(f"{run.name} failed: {failure}")
        return failure
    return None


def _train(run: SweepRun, options: SweepOptions, splits: DataSplits, device: torch.device) -> None:
    """Trains and measures the missing parts of a run."""
    config, directory, resume = run.config, run.directory, options.resume

    def begin() -> None:
        data = data_record(splits)
        directory.check(config, data, resume=resume)  # somebody may have trained it since
        directory.begin(config, data)

    on_main(begin)
    model = train_vqvae(config, directory, splits, device, resume=resume)
    on_main(lambda: measure_stage_one(run, model, splits.test, device))
    if options.sweep.with_prior:
        dump = dump_codes(directory, splits, model, device, config.prior_augmentation)
        train_prior(config, directory, dump, device, resume=resume)
        on_main(lambda: measure_prior(run))


def _rows(runs: Sequence[SweepRun], failures: Mapping[str, str]) -> list[SweepRow]:
    """Reads the rows of the runs that were measured or have failed."""
    rows = []
    for run in runs:
        row = run.read_row()
        if run.name in failures:
            row = row or SweepRow(kind=run.kind, codebook_size=run.size)
            row = replace(row, failure=failures[run.name])
        rows += [] if row is None else [row]
    return rows


def _write_table(
    options: SweepOptions, runs: Sequence[SweepRun], failures: Mapping[str, str], num_images: int
) -> None:
    """Renews the table, as Markdown, CSV and a plot."""
    rows, directory, config = _rows(runs, failures), options.directory, options.sweep.run
    so_far = f"{len(rows)} of {len(runs)} runs so far; " if len(rows) < len(runs) else ""
    prior = (
        f" and {config.prior_training.epochs:g} of the prior" if options.sweep.with_prior else ""
    )
    head = (
        f"{so_far}{config.data.source}, {num_images:,} test images; "
        f"{config.vqvae_training.epochs:g} epochs of stage one{prior}, seed {config.seed}.\n"
    )
    write_text(directory.markdown, document(head, rows, num_images))
    write_text(directory.csv, to_csv(rows))
    save_sweep_plot(directory.plot, rows)
