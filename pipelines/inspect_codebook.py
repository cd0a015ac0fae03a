"""`python -m pipelines.inspect_codebook`: what is wrong with a codebook, and what to change."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipelines.cli.command import parse, run_command
from pipelines.cli.options import Device
from pipelines.data.location import DataLocation
from pipelines.runs.directory import LATEST, RunDirectory


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectCodebookOptions:
    """Measure a run's codebook over a whole split, plot it, and print what to change."""

    run: Path = LATEST
    """Run directory with a trained VQ-VAE; it needs no prior."""
    split: Literal["train", "validation", "test"] = "train"
    """Which split of the data. The codebook was made for train, and only so many images tell a
    dead code from a rare one; test is for reporting, and no option should be chosen by it."""
    data: DataLocation = field(default_factory=DataLocation)
    """Where the run's images are now."""
    out: Path | None = None
    """New directory for the plots and codebook.json; None takes RUN/codebook, which belongs to
    this command and is replaced as a whole."""
    device: Device = "auto"


def main() -> None:
    """Reads the options and inspects."""
    options = parse(InspectCodebookOptions)
    directory = RunDirectory(options.run)
    directory.config()  # refuses another directory early

    from pipelines.codebook.inspect import inspect_codebook

    inspect_codebook(
        directory,
        options.split,
        location=options.data,
        out=options.out,
        device_name=options.device,
    )


if __name__ == "__main__":
    run_command(main)
