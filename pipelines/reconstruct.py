"""`python -m pipelines.reconstruct`: images and their reconstructions by stage one."""

from __future__ import annotations

from pipelines.cli.command import parse, run_command
from pipelines.cli.options import require_positive
from pipelines.generation.options import ReconstructOptions
from pipelines.runs.directory import RunDirectory


def main() -> None:
    """Reads the options and reconstructs."""
    options = parse(ReconstructOptions)
    RunDirectory(options.run).config()  # refuses another directory early
    require_positive(options, "n")

    from pipelines.generation.reconstruction import write_reconstructions

    write_reconstructions(options)


if __name__ == "__main__":
    run_command(main)
