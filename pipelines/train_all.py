"""`python -m pipelines.train_all`: both stages, samples and a report, in one run directory."""

from __future__ import annotations

import sys

from pipelines.cli.command import run_command
from pipelines.runs.kinds import recipe_defaults
from pipelines.runs.options import TrainAllOptions, read_train_options


def main() -> None:
    """Reads the options and trains."""
    run = recipe_defaults(sys.argv[1:])
    options = read_train_options(
        TrainAllOptions(run=run, tune=run.recipe != "smoke"),
        "Train a VQ-VAE, dump its codes, train a prior on them, and sample.",
    )

    from pipelines.runs.both_stages import train_all

    train_all(options)


if __name__ == "__main__":
    run_command(main)
