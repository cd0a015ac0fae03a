"""The directory of a sweep: its own files, and one run directory per run. Imports no torch.

sweep.json                     the options the sweep was started with
KIND-SIZE/                     an ordinary run directory each
KIND-SIZE/sweep_row.json       that run's row of the table, once it is measured
sweep.md  sweep.csv  sweep.png     the table, renewed after every run
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from pipelines.files.atomic import is_empty, remove_partial
from pipelines.files.ownership import LOCK_FILES, owned
from pipelines.files.records import read_record, write_record
from pipelines.runs.config import RunConfig, deciding, differences
from pipelines.runs.directory import RunDirectory
from pipelines.sweeps.row import SweepRow

_T = TypeVar("_T")

FORMAT_VERSION = 3
_ROW_VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepConfig:
    """Everything that decides the results of a sweep."""

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

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values by option, without the quantizer of `run`, which is not used."""
        run = self.run.to_dict()
        del run["vqvae"]["quantizer"]
        return {
            "quantizers": list(self.quantizers),
            "codebook_sizes": list(self.codebook_sizes),
            "with_prior": self.with_prior,
            **run,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class _SweepFile:
    """The content of sweep.json."""

    precision: Literal["fp32", "bf16"] | None
    """Number format in place of `auto`; None if no stage is set to it."""
    sweep: SweepConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class _RowFile:
    """The content of sweep_row.json."""

    row: SweepRow


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepRun:
    """One run of a sweep."""

    kind: str
    """Quantizer."""
    size: int
    """Codes a grid position, over all of the quantizer's grids."""
    config: RunConfig
    """All its settings."""
    directory: RunDirectory
    """Its run directory."""

    @property
    def name(self) -> str:
        """Name in messages."""
        return self.directory.path.name

    @property
    def row_file(self) -> Path:
        """File with the row of the table."""
        return self.directory.path / "sweep_row.json"

    def read_row(self) -> SweepRow | None:
        """Reads its row as far as it was measured; None if it was not."""
        if not self.row_file.exists():
            return None
        cure = "remove it to have the run measured again"
        return read_record(self.row_file, "sweep-row", _ROW_VERSION, _RowFile, cure=cure).row

    def write_row(self, row: SweepRow) -> None:
        """Writes its row of the table; an older one is replaced."""
        write_record(self.row_file, "sweep-row", _ROW_VERSION, _RowFile(row=row))


class SweepDirectory:
    """Paths of a sweep and the record of its options."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record_file = path / "sweep.json"
        self.markdown = path / "sweep.md"
        self.csv = path / "sweep.csv"
        self.plot = path / "sweep.png"

    def run(self, kind: str, size: int) -> RunDirectory:
        """Returns the run of a kind of quantizer and a codebook size."""
        return RunDirectory(self.path / f"{kind}-{size}")

    def owned(self, activity: str) -> AbstractContextManager[None]:
        """Keeps other processes from writing into the sweep; see `owned`."""
        return owned(self.path, activity)

    def check(self, config: SweepConfig, *, resume: bool) -> None:
        """Refuses a directory that cannot take the sweep, and changes nothing.

        A directory in which nothing was trained yet takes any sweep. With `resume` a sweep may be
        extended: runs and the prior may be added, since that changes nothing of what is there.

        Raises:
            FileExistsError: There is a sweep and `resume` is False, or there is something else.
            ValueError: The sweep that is there has other options, or a damaged record.
        """
        if not self.record_file.exists():
            if self.path.exists() and not is_empty(self.path, LOCK_FILES):
                raise FileExistsError(
                    f"a sweep needs a new or empty directory, but {self.path} holds something "
                    "else: name another with --out"
                )
            return
        recorded = self._read().sweep
        if not self._has_results():
            return
        if not resume:
            raise FileExistsError(
                f"a new sweep needs a new directory, but {self.path} holds a sweep: add --resume "
                "to go on with it, or name another with --out"
            )
        if changed := _changes(recorded, config):
            raise ValueError(
                f"to resume {self.path} the options must be those it was started with, but "
                f"{'; '.join(changed)}: repeat the original options or begin another sweep"
            )

    def begin(self, config: SweepConfig, precision: Literal["fp32", "bf16"] | None) -> None:
        """Records the options of a sweep that begins, or of one that goes on and may have grown.

        `precision` is the number format in place of `auto`; None if no stage is set to it.
        """
        remove_partial(self.path)
        content = _SweepFile(precision=precision, sweep=config)
        write_record(self.record_file, "sweep", FORMAT_VERSION, content)

    def precision(self) -> Literal["fp32", "bf16"] | None:
        """The `precision` given to `begin`; None before that."""
        if not self.record_file.exists():
            return None
        return self._read().precision

    def _read(self) -> _SweepFile:
        cure = "restore it, or begin another sweep with --out"
        return read_record(self.record_file, "sweep", FORMAT_VERSION, _SweepFile, cure=cure)

    def _has_results(self) -> bool:
        """Checks if anything was trained in one of its runs."""
        return any(
            RunDirectory(file.parent).has_results() for file in self.path.glob("*/config.json")
        )


def _changes(old: SweepConfig, new: SweepConfig) -> list[str]:
    """Lists differences between two sweeps' options, apart from those that may differ."""
    allowed = replace(
        old,
        quantizers=_extended(old.quantizers, new.quantizers),
        codebook_sizes=_extended(old.codebook_sizes, new.codebook_sizes),
        with_prior=old.with_prior or new.with_prior,
    )
    return differences(deciding(allowed.to_dict()), deciding(new.to_dict()))


def _extended(old: tuple[_T, ...], new: tuple[_T, ...]) -> tuple[_T, ...]:
    """Returns `new` if it has all of `old`, else `old`."""
    return new if set(old) <= set(new) else old
