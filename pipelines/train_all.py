"""`python -m pipelines.train_all`: both stages, samples and a report, in one run directory."""

from __future__ import annotations

from pipelines.cli.command import run_command
from pipelines.runs.options import read_train_options


def main() -> None:
    """Reads the options and trains."""
    options = read_train_options(
        "Train a VQ-VAE, dump its codes, train a prior on them, and sample."
    )

    from pipelines.runs.both_stages import train_all

    train_all(options)


if __name__ == "__main__":
    run_command(main)
