"""All runs of a sweep: trained, measured, and written into one table."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch

from pipelines.cli.echo import say
from pipelines.data.data_record import data_record
from pipelines.data.image_set import DataSplits
from pipelines.data.load import load_splits
from pipelines.files.atomic import write_text
from pipelines.files.records import convert, to_json
from pipelines.runs.codes import dump_codes
from pipelines.runs.config import settings_of_all
from pipelines.runs.messages import plan
from pipelines.runs.stage_one import train_vqvae
from pipelines.runs.stage_two import train_prior
from pipelines.sweeps.directory import SweepRun
from pipelines.sweeps.measurement import vqvae_row, with_prior_figures
from pipelines.sweeps.options import SweepOptions
from pipelines.sweeps.plot import save_sweep_figure
from pipelines.sweeps.table import (
    NOTES,
    SweepRow,
    failures_to_markdown,
    to_csv,
    to_markdown,
)
from pipelines.training.device import choose_device
from pipelines.training.distributed import (
    agree,
    enter_on_main,
    is_main,
    on_main,
    process_group,
    require_shared,
    world_size,
)
from pipelines.training.precision import resolve_precision


def sweep(options: SweepOptions) -> None:
    """Trains and measures every run that is not finished, and renews the table after each.

    A run that fails is noted in the table and the others go on. With several processes it ends the
    command instead: only one of them may have noticed, and the others would wait for it.

    Raises:
        RuntimeError: A run failed; the others are finished.
        ValueError: Processes cannot share a batch, or as `SweepOptions.check`.
    """
    options.run.check_processes()
    device = choose_device(options.run.device)
    with process_group(device), ExitStack() as stack:
        on_main(options.check)
        agree(settings_of_all(options.config.to_dict()) | {"resume": options.resume})
        if not options.dry_run:
            require_shared(options.directory.path)
            stack.enter_context(enter_on_main(options.directory.owned("trained")))
        splits = load_splits(options.run.data)
        say(_plan(options, splits))
        if options.dry_run:
            say(json.dumps(options.config.to_dict(), indent=2))
            return
        runs = _open(options, splits, device)
        rows = {run.name: row for run in runs if (row := _read_row(run)) is not None}
        for number, run in enumerate(runs, 1):
            if _is_finished(rows.get(run.name), options):
                say(f"{run.name}: already finished, in {run.directory.path}")
                continue
            say(f"{run.name}: run {number} of {len(runs)}")
            rows[run.name] = _train_or_note_failure(run, options, splits, device)
            _write_table(options, runs, rows, len(splits.test))
        _write_table(options, runs, rows, len(splits.test))
    table = [rows[run.name] for run in runs]
    say(to_markdown(table).rstrip())
    say(f"table: {options.directory.markdown}, its figures in sweep.csv and sweep.png")
    failed = [row for row in table if row.failure is not None]
    if failed:
        raise RuntimeError(
            f"{len(failed)} of {len(table)} runs failed, first {failed[0].kind} with "
            f"{failed[0].codebook_size} codes ({failed[0].failure}): the table has the others, and "
            "--resume tries the failed ones again"
        )


def _plan(options: SweepOptions, splits: DataSplits) -> str:
    """The data, and what each run trains; builds all models, without memory."""
    lines: list[str] = []
    for run in options.runs():
        *data, vqvae, prior = plan(run.config, splits).splitlines()
        lines += [] if lines else data
        lines.append(f"{run.name}: {vqvae}" + (f"; {prior}" if options.with_prior else ""))
    return "\n".join(lines)


def _open(options: SweepOptions, splits: DataSplits, device: torch.device) -> list[SweepRun]:
    """Begins or re-opens the sweep and gives its runs, the same on every process."""
    directory, data = options.directory, data_record(splits)

    def begin() -> str | None:
        options.check(data)
        stages = (options.run.vqvae_training, options.run.prior_training)
        precision = directory.precision()
        if precision is None and any(stage.precision == "auto" for stage in stages):
            # Once for all runs: measured for each, it could come out otherwise for some.
            precision = resolve_precision("auto", device).name
        directory.begin(options.config, precision)
        return precision

    agree({"data": to_json(data)}, "give all of them the same images")
    return options.runs(on_main(begin))


def _read_row(run: SweepRun) -> SweepRow | None:
    """The run's row that rank 0 finds."""

    def read() -> dict[str, Any] | None:
        row = run.read_row()
        return None if row is None else to_json(row)

    record = on_main(read)
    return None if record is None else convert(record, SweepRow)


def _is_finished(row: SweepRow | None, options: SweepOptions) -> bool:
    return row is not None and (row.bits_per_code is not None or not options.with_prior)


def _train_or_note_failure(
    run: SweepRun, options: SweepOptions, splits: DataSplits, device: torch.device
) -> SweepRow:
    """The run's row; of a failed run what it came to, and why it came no further."""
    try:
        return _train(run, options, splits, device)
    except (ValueError, RuntimeError, OSError) as error:
        if world_size() > 1:
            raise
        if os.environ.get("TRACEBACK"):
            say(traceback.format_exc())
        failure = " ".join(str(error).split())
        say(f"{run.name} failed: {failure}")
        row = run.read_row() or SweepRow(kind=run.kind, codebook_size=run.size)
        return replace(row, failure=failure)


def _train(
    run: SweepRun, options: SweepOptions, splits: DataSplits, device: torch.device
) -> SweepRow:
    """Trains and measures what of a run is missing; gives its row."""
    with enter_on_main(run.directory.owned("trained")):
        return _train_owned(run, options, splits, device)


def _train_owned(
    run: SweepRun, options: SweepOptions, splits: DataSplits, device: torch.device
) -> SweepRow:

    directory, resume = run.directory, options.resume
    on_main(lambda: directory.begin(run.config, data_record(splits)))
    model = train_vqvae(run.config, directory, splits, device, resume=resume)
    row = _read_row(run)
    if row is None:
        row = _measured(run, lambda: vqvae_row(run, model, splits.test, device))
    if not options.with_prior or row.bits_per_code is not None:
        return row
    dump = dump_codes(directory, splits, model, device, run.config.augmentation)
    train_prior(run.config, directory, dump, device, resume=resume)
    return _measured(run, lambda stage_one=row: with_prior_figures(stage_one, run))  # type: ignore[misc]


def _measured(run: SweepRun, measure: Callable[[], SweepRow]) -> SweepRow:
    """What rank 0 measures, on every process; it is kept in the run's directory."""

    def measure_and_keep() -> dict[str, Any]:
        row = measure()
        run.write_row(row)
        return to_json(row)

    return convert(on_main(measure_and_keep), SweepRow)


def _write_table(
    options: SweepOptions, runs: Sequence[SweepRun], rows: Mapping[str, SweepRow], num_images: int
) -> None:
    """Renews the table of the runs that have a row."""
    if not is_main():
        return
    known = [rows[run.name] for run in runs if run.name in rows]
    so_far = f"{len(known)} of {len(runs)} runs so far; " if len(known) < len(runs) else ""
    prior = f" and {options.run.prior_training.epochs:g} of the prior" if options.with_prior else ""
    head = (
        f"{so_far}{options.run.data.source}, {num_images:,} test images; "
        f"{options.run.vqvae_training.epochs:g} epochs of stage one{prior}, seed "
        f"{options.run.seed}.\n"
    )
    parts = (head, to_markdown(known), failures_to_markdown(known), NOTES)
    directory = options.directory
    write_text(directory.markdown, "\n".join(part for part in parts if part))
    write_text(directory.csv, to_csv(known))
    save_sweep_figure(directory.figure, known)
