"""The directory of a sweep: its own files, and one run directory per run. Imports no torch.

sweep.json                     the options the sweep was started with
KIND-SIZE/                     an ordinary run directory each
KIND-SIZE/sweep_row.json       that run's row of the table, once it is measured
sweep.md  sweep.csv  sweep.png     the table, renewed after every run
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.atomic_files import is_empty, remove_partial, write_text
from pipelines.config import RunConfig, differences, with_newer_settings
from pipelines.evaluation.sweep_table import SweepRow
from pipelines.run_dir import RunDirectory

FORMAT_VERSION = 1


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
    """Where it goes."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.directory.path.name

    @property
    def row_file(self) -> Path:
        """Its row of the table."""
        return self.directory.path / "sweep_row.json"

    def read_row(self) -> SweepRow | None:
        """Its row as far as it was measured; None if it was not.

        Raises:
            ValueError: The file is damaged or of another version.
        """
        if not self.row_file.exists():
            return None
        try:
            return SweepRow.from_dict(json.loads(self.row_file.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(
                f"{self.row_file} is damaged or of another version ({error}): remove it to have "
                "the run measured again"
            ) from error

    def write_row(self, row: SweepRow) -> None:
        """Keeps a measured row, replacing what was there."""
        text = json.dumps(row.to_dict(), indent=2, allow_nan=False)
        write_text(self.row_file, text + "\n")


class SweepDirectory:
    """Paths of a sweep and the record of its options."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def record_file(self) -> Path:
        """`sweep.json`."""
        return self.path / "sweep.json"

    @property
    def markdown(self) -> Path:
        """The table, with what it means."""
        return self.path / "sweep.md"

    @property
    def csv(self) -> Path:
        """The table, unrounded."""
        return self.path / "sweep.csv"

    @property
    def figure(self) -> Path:
        """The table as a figure."""
        return self.path / "sweep.png"

    def run(self, kind: str, size: int) -> RunDirectory:
        """The run directory of a kind of quantizer and a codebook size."""
        return RunDirectory(self.path / f"{kind}-{size}")

    def check(self, options: Mapping[str, Any], *, resume: bool) -> None:
        """Refuses a directory that cannot take the sweep, and changes nothing.

        Args:
            options: Everything that decides the results, JSON-ready, by option; `quantizers`,
                `codebook_sizes`, `with_prior` and `device` are among them.
            resume: Whether to go on with a sweep that is there. It may be extended: runs and the
                prior may be added, since that changes nothing of what is there. The device may
                change.

        Raises:
            FileExistsError: There is a sweep and `resume` is False, or there is something else.
            ValueError: The sweep that is there has other options, or a damaged record.
        """
        if self.record_file.exists() and resume:
            changed = _changes(with_newer_settings(self._read()["options"]), options)
            if changed:
                raise ValueError(
                    f"to resume {self.path} the options must be those it was started with, but "
                    f"{'; '.join(changed)}: repeat the original options or begin another sweep"
                )
        elif self.record_file.exists():
            raise FileExistsError(
                f"a new sweep needs a new directory, but {self.path} holds a sweep: add --resume "
                "to go on with it, or name another with --out"
            )
        elif self.path.exists() and not is_empty(self.path):
            raise FileExistsError(
                f"a sweep needs a new or empty directory, but {self.path} holds something else: "
                "name another with --out"
            )

    def begin(self, options: Mapping[str, Any], precision: str | None) -> None:
        """Records the options of a sweep that begins, or of one that goes on and may have grown.

        Args:
            options: As for `check`, which must have passed.
            precision: What the number format `auto` came to; None if no stage asks for it.
        """
        remove_partial(self.path)
        record = {"format_version": FORMAT_VERSION, "precision": precision, "options": options}
        write_text(self.record_file, json.dumps(record, indent=2) + "\n")

    def precision(self) -> str | None:
        """The `precision` given to `begin`; None too where no sweep has begun."""
        if not self.record_file.exists():
            return None
        precision: str | None = self._read()["precision"]
        return precision

    def _read(self) -> dict[str, Any]:
        try:
            record = dict(json.loads(self.record_file.read_text(encoding="utf-8")))
            version, options = record["format_version"], record["options"]
            if not isinstance(options, dict) or record["precision"] not in (None, "fp32", "bf16"):
                raise ValueError("options and a precision are required")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.record_file} is damaged ({error}): restore it") from error
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{self.record_file} has format version {version}, but this version of the "
                f"software reads {FORMAT_VERSION}: use the version that wrote it"
            )
        return record


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two sweeps' options, apart from what may differ."""
    allowed = dict(old) | {"device": new["device"]}
    for name in ("quantizers", "codebook_sizes"):
        if _contains(new[name], old.get(name, [])):
            allowed[name] = new[name]
    if new["with_prior"]:
        allowed["with_prior"] = True
    return differences(allowed, new)


def _contains(whole: Sequence[object], part: Sequence[object]) -> bool:
    return all(value in whole for value in part)
