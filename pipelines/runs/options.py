"""Options of the commands that begin a run: `train_all` and `train_vqvae`. Imports no torch."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from pipelines.cli.command import parse
from pipelines.data.location import with_absolute_paths
from pipelines.files.atomic import refuse_unwritable
from pipelines.runs.config import RunConfig
from pipelines.runs.directory import RUNS, RunDirectory
from pipelines.runs.kinds import is_given
from pipelines.runs.rules import CHOOSING_RECIPES, CHOSEN_OPTIONS, EPOCHS
from pipelines.training.config import PrecisionChoice

BothPrecisions = Annotated[
    PrecisionChoice | None,
    tyro.conf.arg(
        help="Number format of both stages' convolutions and matrix products: auto takes bf16 "
        "where a short test at the start shows it to be right and faster, and fp32 elsewhere. None "
        "leaves it to vqvae-training.precision and prior-training.precision."
    ),
]
DryRun = Annotated[
    bool,
    tyro.conf.arg(
        help="Read (and, if need be, download) the data, print every setting and what would be "
        "trained, and write nothing else."
    ),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOptions:
    """Where a run goes and how it starts; every option of `run` follows."""

    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    """What is trained."""
    out: Path | None = None
    """Run directory to make; None takes runs/RECIPE."""
    resume: bool = False
    """Go on with the run that is there, from its last checkpoint; the options must be the same,
    except for those that change no result, such as where the images are now. Where there is none
    yet, begin."""
    start_from: Path | None = None
    """Finished run whose weights both stages start from, for example to train it further: with the
    same models, a new schedule, in a new directory. None leaves it to vqvae-from and prior-from."""
    precision: BothPrecisions = None
    dry_run: DryRun = False
    hours: float | None = None
    """Hours that the steps of both trainings may take, for a recipe that chooses their epochs by
    the data; None takes one hour, on a CUDA device ten minutes. A ten-second test at the start
    measures the speed. Without effect on --resume, which keeps the epochs."""
    left_open: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()
    """Options such as `--vqvae.width` that `rules` choose by images and machine; the command line
    leaves open those that it does not name, of a recipe that chooses."""

    def check(self, results: Sequence[Path]) -> bool:
        """Refuses what cannot be trained or written, before any work is done.

        Returns whether anything will be written: not by a dry run, nor where all `results` of the
        command exist.

        Raises:
            FileNotFoundError: A run whose weights are to be started from has none.
            ValueError: `hours` is not positive, or there are no epochs to choose.
        """
        self._check_hours()
        for start, model in ((self.run.vqvae_from, "vqvae"), (self.run.prior_from, "prior")):
            if start is not None and not (start / model).is_dir():
                raise FileNotFoundError(
                    f"a run with a trained {model} is required to start from, but {start / model} "
                    "does not exist: check the path"
                )
        if self.dry_run:
            return False
        self.directory.check(self.run, resume=self.resume)
        if all(path.exists() for path in results) and self.directory.config() == self.run:
            return False
        refuse_unwritable(self.directory.path)
        return True

    @property
    def directory(self) -> RunDirectory:
        """The run directory."""
        return RunDirectory(self.out or RUNS / self.run.recipe)

    def _check_hours(self) -> None:
        """Refuses `hours` that are not positive, or that choose no epochs."""
        if self.hours is None:
            return
        if not 0 < self.hours < math.inf:
            raise ValueError(f"hours must be positive and finite, got {self.hours}")
        if self.run.recipe not in CHOOSING_RECIPES:
            raise ValueError(
                "--hours goes with recipes that choose their epochs "
                f"({', '.join(CHOOSING_RECIPES)}), got --recipe {self.run.recipe}: give "
                "--vqvae-training.epochs and --prior-training.epochs"
            )
        if not (self.resume or set(EPOCHS).intersection(self.left_open)):
            raise ValueError(
                f"--hours goes with epochs that are left to choose, got {' and '.join(EPOCHS)}: "
                "leave one of them out, or --hours"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainAllOptions(TrainOptions):
    """The options of `train_all`."""

    tune: bool = True
    """End with a choice of temperature and guidance on the validation split, in about a tenth of
    the time, which sample takes for options that are not given. Off in the recipe smoke."""


OptionsT = TypeVar("OptionsT", bound=TrainOptions)


def open_options(argv: Sequence[str], run: RunConfig) -> tuple[str, ...]:
    """Returns the options that the recipe chooses by the data, without those given in `argv`."""
    if run.recipe not in CHOOSING_RECIPES:
        return ()
    return tuple(option for option in CHOSEN_OPTIONS if not is_given(argv, option))


def read_train_options(default: OptionsT, description: str) -> OptionsT:
    """Reads the command line of `train_all` or `train_vqvae`; `description` heads the help."""
    options = parse(type(default), default=default, description=description)
    run = options.run.with_precision(options.precision)
    if options.start_from is not None:
        run = replace(run, vqvae_from=options.start_from, prior_from=options.start_from)
    return replace(
        options, run=resolve_paths(run), left_open=open_options(sys.argv[1:], options.run)
    )


def resolve_paths(run: RunConfig) -> RunConfig:
    """Returns `run` with absolute paths, which are valid in any working directory."""
    vqvae_from, prior_from = (
        path and path.expanduser().resolve() for path in (run.vqvae_from, run.prior_from)
    )
    data = with_absolute_paths(run.data)
    return replace(run, data=data, vqvae_from=vqvae_from, prior_from=prior_from)
