"""`python -m pipelines.sweep`: one run per quantizer and codebook size, and one table of them."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from pipelines.cli.command import parse, recipe_defaults, run_command, say
from pipelines.dump_codes import dump_codes
from pipelines.files.atomic import refuse_unwritable, write_text
from pipelines.files.records import convert, to_json
from pipelines.runs.config import RunConfig, settings_of_all
from pipelines.runs.directory import RUNS
from pipelines.runs.recipes import RECIPES
from pipelines.sweeps.directory import SweepConfig, SweepDirectory, SweepRun
from pipelines.sweeps.quantizers import recommended_quantizer
from pipelines.sweeps.table import (
    NOTES,
    SweepRow,
    failures_to_markdown,
    to_csv,
    to_markdown,
)
from pipelines.train_prior import train_prior
from pipelines.train_vqvae import check_batches, found_from_anywhere, train_vqvae
from pipelines.training.config import PrecisionChoice, TrainingConfig
from stage1_vqvae.quantizers.config import QUANTIZER_CONFIGS

if TYPE_CHECKING:
    import torch

    from pipelines.data.data_record import DataRecord
    from pipelines.data.image_set import DataSplits


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepOptions:
    """Which runs are compared and where they go; every option of `run` follows."""

    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    """What is trained each time, but for the quantizer."""
    quantizers: tuple[str, ...] = ("ema", "finite_scalar")
    """Kinds of quantizers to try, each with its recommended settings: any of those that
    vqvae.quantizer.kind names. The options of vqvae.quantizer itself must be left out."""
    codebook_sizes: tuple[int, ...] = (64, 256, 1024)
    """Codebook sizes K to try with every kind: a grid position takes log2(K) bits, over all grids
    of a quantizer that has several."""
    with_prior: bool = False
    """Train the prior on the codes of every run too, and compare bits under it."""
    out: Path | None = None
    """Directory to make: a run directory KIND-SIZE for each run, and the table as sweep.md,
    sweep.csv and sweep.png; None takes runs/sweep-RECIPE."""
    resume: bool = False
    """Go on with the sweep that is there: finished runs are read, an interrupted one goes on from
    its last checkpoint, a failed one is tried again. The options must be the same, except that
    quantizers, codebook sizes and the prior may be added. Where there is no sweep yet, begin."""
    precision: PrecisionChoice | None = None
    """Number format of both stages' convolutions and matrix products: auto takes bf16 where a short
    test at the start of the sweep shows it to be right and faster, for all runs alike, and fp32
    elsewhere. None leaves it to vqvae-training.precision and prior-training.precision."""
    dry_run: bool = False
    """Read (and, if need be, download) the data, print every setting and what would be trained,
    and write nothing else."""

    @property
    def directory(self) -> SweepDirectory:
        """Where everything goes."""
        return SweepDirectory(self.out or RUNS / f"sweep-{self.run.recipe}")

    def runs(self, precision: str | None = None) -> list[SweepRun]:
        """All runs, by kind and then by size.

        Args:
            precision: What the number format `auto` came to; None leaves it.

        Raises:
            ValueError: A kind cannot have a size.
        """
        config = with_precision(self.run, precision, instead_of="auto")
        return [
            SweepRun(
                kind=kind,
                size=size,
                config=_with_quantizer(config, kind, size),
                directory=self.directory.run(kind, size),
            )
            for kind in self.quantizers
            for size in self.codebook_sizes
        ]

    @property
    def config(self) -> SweepConfig:
        """Everything that decides the results."""
        return SweepConfig(
            quantizers=self.quantizers,
            codebook_sizes=self.codebook_sizes,
            with_prior=self.with_prior,
            run=self.run,
        )

    def check(self, data: DataRecord | None = None) -> None:
        """Refuses impossible options and a directory that cannot take the sweep, before any work.

        Args:
            data: What was found in the data (`data_record`); None while unread.

        Raises:
            FileExistsError: It holds a sweep and `resume` is False, or something else.
            ValueError: An option is impossible, or the sweep that is to be resumed has other
                options or data.
            OSError: The directory cannot be written.
        """
        _require_distinct("quantizers", self.quantizers)
        _require_distinct("codebook-sizes", self.codebook_sizes)
        unknown = [kind for kind in self.quantizers if kind not in QUANTIZER_CONFIGS]
        if unknown:
            raise ValueError(
                f"quantizers must be among {', '.join(QUANTIZER_CONFIGS)}, got {unknown[0]}"
            )
        if self.run.vqvae.quantizer != RECIPES[self.run.recipe]().vqvae.quantizer:
            raise ValueError(
                "a sweep takes its quantizers from --quantizers and --codebook-sizes, each with "
                "its recommended settings, but an option of --vqvae.quantizer was given: leave it "
                "out"
            )
        if self.run.vqvae_from is not None or self.run.prior_from is not None:
            raise ValueError(
                "the runs of a sweep have models of their own and start from random weights: leave "
                "--vqvae-from and --prior-from out"
            )
        runs = self.runs()
        if self.dry_run:
            return
        self.directory.check(self.config, resume=self.resume)
        if self.resume:
            runs = self.runs(self.directory.precision())
        for run in runs:
            run.directory.check(run.config, data, resume=self.resume)
        refuse_unwritable(self.directory.path)


def with_precision(run: RunConfig, choice: Any, *, instead_of: str | None = None) -> RunConfig:
    """`run` with both stages in one number format.

    Args:
        run: Any settings.
        choice: auto, fp32 or bf16; None changes nothing.
        instead_of: Changes only a stage that asks for this; None changes both.
    """
    if choice is None:
        return run

    def changed(training: TrainingConfig) -> TrainingConfig:
        asked = instead_of in (None, training.precision)
        return replace(training, precision=choice) if asked else training

    return replace(
        run,
        vqvae_training=changed(run.vqvae_training),
        prior_training=changed(run.prior_training),
    )


def sweep(options: SweepOptions) -> None:
    """Trains and measures every run that is not finished, and renews the table after each.

    A run that fails is noted in the table and the others go on. With several processes it ends the
    command instead: only one of them may have noticed, and the others would wait for it.

    Raises:
        RuntimeError: A run failed; the others are finished.
        ValueError: Processes cannot share a batch, or as `SweepOptions.check`.
    """
    check_batches(options.run)

    from pipelines.data.load import load_splits
    from pipelines.training.device import choose_device
    from pipelines.training.distributed import (
        agree,
        enter_on_main,
        on_main,
        process_group,
        require_shared,
    )

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


def _require_distinct(option: str, values: Sequence[object]) -> None:
    if not values:
        raise ValueError(f"{option} must name at least one, got none")
    repeated = [str(value) for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise ValueError(
            f"{option} must differ from each other, got {', '.join(repeated)} more than once: "
            "name each once"
        )


def _with_quantizer(config: RunConfig, kind: str, size: int) -> RunConfig:
    try:
        quantizer = recommended_quantizer(kind, size)
    except ValueError as error:
        raise ValueError(f"the quantizer {kind} cannot have {size} codes: {error}") from error
    return replace(config, vqvae=replace(config.vqvae, quantizer=quantizer))


def _plan(options: SweepOptions, splits: DataSplits) -> str:
    """The data, and what each run trains; builds all models, without memory."""
    from pipelines.runs.messages import plan

    lines: list[str] = []
    for run in options.runs():
        *data, vqvae, prior = plan(run.config, splits).splitlines()
        lines += [] if lines else data
        lines.append(f"{run.name}: {vqvae}" + (f"; {prior}" if options.with_prior else ""))
    return "\n".join(lines)


def _open(options: SweepOptions, splits: DataSplits, device: torch.device) -> list[SweepRun]:
    """Begins or re-opens the sweep and gives its runs, the same on every process."""
    from pipelines.data.data_record import data_record
    from pipelines.training.distributed import agree, on_main
    from pipelines.training.precision import resolve_precision

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
    from pipelines.training.distributed import on_main

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
    from pipelines.training.distributed import world_size

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
    from pipelines.training.distributed import enter_on_main

    with enter_on_main(run.directory.owned("trained")):
        return _train_owned(run, options, splits, device)


def _train_owned(
    run: SweepRun, options: SweepOptions, splits: DataSplits, device: torch.device
) -> SweepRow:
    from pipelines.data.data_record import data_record
    from pipelines.sweeps.measurement import vqvae_row, with_prior_figures
    from pipelines.training.distributed import on_main

    directory, resume = run.directory, options.resume
    on_main(lambda: directory.begin(run.config, data_record(splits), resume=resume))
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
    from pipelines.training.distributed import on_main

    def measure_and_keep() -> dict[str, Any]:
        row = measure()
        run.write_row(row)
        return to_json(row)

    return convert(on_main(measure_and_keep), SweepRow)


def _write_table(
    options: SweepOptions, runs: Sequence[SweepRun], rows: Mapping[str, SweepRow], num_images: int
) -> None:
    """Renews the table of the runs that have a row."""
    from pipelines.sweeps.plot import save_sweep_figure
    from pipelines.training.distributed import is_main

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


def main() -> None:
    """Reads the options and sweeps."""
    options = parse(
        SweepOptions,
        default=SweepOptions(run=recipe_defaults(sys.argv[1:])),
        description="Train one run per quantizer and codebook size and compare them in one table.",
    )
    run = with_precision(found_from_anywhere(options.run), options.precision)
    sweep(replace(options, run=run))


if __name__ == "__main__":
    run_command(main)
