"""Options of a sweep. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from pipelines.data.data_record import DataRecord
from pipelines.files.atomic import refuse_unwritable
from pipelines.runs.config import RunConfig
from pipelines.runs.directory import RUNS
from pipelines.runs.recipes import RECIPES
from pipelines.sweeps.directory import SweepConfig, SweepDirectory, SweepRun
from pipelines.sweeps.quantizers import recommended_quantizer
from pipelines.training.config import PrecisionChoice, TrainingConfig
from stage1_vqvae.quantizers.config import QUANTIZER_CONFIGS


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
