"""Options of a sweep. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from pipelines.data.data_record import DataRecord
from pipelines.files.atomic import refuse_unwritable
from pipelines.runs.config import RunConfig
from pipelines.runs.directory import RUNS
from pipelines.runs.options import BothPrecisions, DryRun
from pipelines.runs.recipes import RECIPES
from pipelines.sweeps.directory import SweepConfig, SweepDirectory, SweepRun
from pipelines.sweeps.quantizers import recommended_quantizer
from pipelines.training.config import PrecisionChoice
from stage1_vqvae.quantizers.config import QUANTIZER_CONFIGS


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepOptions:
    """Which runs are compared, and where they go."""

    sweep: Annotated[SweepConfig, tyro.conf.arg(name="")]
    """What is trained."""
    out: Path | None = None
    """Directory to make: a run directory KIND-SIZE for each run, and the table as sweep.md,
    sweep.csv and sweep.png; None takes runs/sweep-RECIPE."""
    resume: bool = False
    """Go on with the sweep that is there: finished runs are read, an interrupted one goes on from
    its last checkpoint, a failed one is tried again. The options must be the same, except that
    quantizers, codebook sizes and the prior may be added. Where there is no sweep yet, begin."""
    precision: BothPrecisions = None
    dry_run: DryRun = False

    @property
    def directory(self) -> SweepDirectory:
        """Directory of the sweep."""
        return SweepDirectory(self.out or RUNS / f"sweep-{self.sweep.run.recipe}")

    def runs(self, precision: PrecisionChoice | None = None) -> list[SweepRun]:
        """Returns all runs, by kind and then by size; `precision` replaces `auto`."""
        config = self.sweep.run.with_precision(precision, instead_of="auto")
        return [
            SweepRun(
                kind=kind,
                size=size,
                config=_with_quantizer(config, kind, size),
                directory=self.directory.run(kind, size),
            )
            for kind in self.sweep.quantizers
            for size in self.sweep.codebook_sizes
        ]

    def check(self, data: DataRecord | None = None) -> None:
        """Refuses impossible options and a directory that cannot take the sweep, before any work.

        `data` is what was found in the data; None while unread.
        """
        _require_distinct("quantizers", self.sweep.quantizers)
        _require_distinct("codebook-sizes", self.sweep.codebook_sizes)
        unknown = [kind for kind in self.sweep.quantizers if kind not in QUANTIZER_CONFIGS]
        if unknown:
            raise ValueError(
                f"quantizers must be among {', '.join(QUANTIZER_CONFIGS)}, got {unknown[0]}"
            )
        if self.sweep.run.vqvae.quantizer != RECIPES[self.sweep.run.recipe].vqvae.quantizer:
            raise ValueError(
                "a sweep takes its quantizers from --quantizers and --codebook-sizes, each with "
                "its recommended settings, but an option of --vqvae.quantizer was given: leave it "
                "out"
            )
        if self.sweep.run.vqvae_from is not None or self.sweep.run.prior_from is not None:
            raise ValueError(
                "the runs of a sweep have models of their own and start from random weights: leave "
                "--vqvae-from and --prior-from out"
            )
        runs = self.runs()
        if self.dry_run:
            return
        self.directory.check(self.sweep, resume=self.resume)
        if self.resume:
            runs = self.runs(self.directory.precision())
        for run in runs:
            run.directory.check(run.config, data, resume=self.resume)
        refuse_unwritable(self.directory.path)


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
