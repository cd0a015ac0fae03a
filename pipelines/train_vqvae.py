"""`python -m pipelines.train_vqvae`: stage one alone."""

from __future__ import annotations

import sys

from pipelines.cli.command import run_command
from pipelines.cli.echo import say
from pipelines.runs.kinds import recipe_defaults
from pipelines.runs.options import TrainOptions, read_train_options


def main() -> None:
    """Reads the options and trains."""
    default = TrainOptions(run=recipe_defaults(sys.argv[1:]))
    options = read_train_options(default, "Train stage one, the VQ-VAE, into a run directory.")

    from pipelines.runs.stage_one import open_run, train_vqvae

    run = options.directory
    with open_run(options, (run.vqvae, run.reconstructions)) as (config, splits, device):
        if options.dry_run:
            return
        train_vqvae(config, run, splits, device, resume=options.resume)
    say(f"next: python -m pipelines.dump_codes {run.option}")


if __name__ == "__main__":
    run_command(main)
