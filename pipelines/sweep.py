"""`python -m pipelines.sweep`: one run per quantizer and codebook size, and one table of them."""

from __future__ import annotations

import sys
from dataclasses import replace

from pipelines.cli.command import parse, run_command
from pipelines.runs.kinds import recipe_defaults
from pipelines.runs.options import resolve_paths
from pipelines.sweeps.directory import SweepConfig
from pipelines.sweeps.options import SweepOptions


def main() -> None:
    """Reads the options and sweeps."""
    options = parse(
        SweepOptions,
        default=SweepOptions(sweep=SweepConfig(run=recipe_defaults(sys.argv[1:]))),
        description="Train one run per quantizer and codebook size and compare them in one table.",
    )
    run = resolve_paths(options.sweep.run).with_precision(options.precision)

    from pipelines.sweeps.run_all import sweep

    sweep(replace(options, sweep=replace(options.sweep, run=run)))


if __name__ == "__main__":
    run_command(main)
