"""`python -m pipelines.reconstruct`: images and their reconstructions by stage one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipelines.cli.command import parse, run_command
from pipelines.cli.options import Device, require_positive
from pipelines.data.location import DataLocation
from pipelines.runs.directory import LATEST, RunDirectory


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructOptions:
    """Encode and decode images with a run's VQ-VAE; write originals above reconstructions."""

    run: Path = LATEST
    """Run directory with a trained VQ-VAE."""
    n: int = 32
    """How many images are shown, from the first on; the metrics are over the whole split."""
    split: Literal["train", "validation", "test"] = "test"
    """Which split of the data."""
    images: Path | None = None
    """Your own images instead of a split: a file, or a folder of files. They are brought to the
    size and channels the run was trained on."""
    data: DataLocation = field(default_factory=DataLocation)
    """Where the run's images are now."""
    out: Path | None = None
    """New PNG file; None takes the next free RUN/reconstructions/NUMBER.png."""
    device: Device = "auto"


def main() -> None:
    """Reads the options and reconstructs."""
    options = parse(ReconstructOptions)
    directory = RunDirectory(options.run)
    directory.config()  # refuses another directory early
    require_positive(options, "n")

    from pipelines.generation.reconstruction import write_reconstructions

    write_reconstructions(
        directory,
        options.n,
        split=options.split,
        path=options.images,
        location=options.data,
        out=options.out,
        device_name=options.device,
    )


if __name__ == "__main__":
    run_command(main)
