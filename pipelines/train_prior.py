"""`python -m pipelines.train_prior`: stage two on the codes of a run."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.cli.command import parse, run_command
from pipelines.cli.echo import say
from pipelines.cli.options import Device
from pipelines.runs.directory import LATEST
from pipelines.runs.kinds import named_run, with_prior_kind
from pipelines.runs.prior_augmentation import PriorAugmentationConfig
from pipelines.training.config import TrainingConfig
from stage2_prior.config import PriorConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainPriorOptions:
    """Train stage two, the prior over code grids, into a run directory that holds codes."""

    run: Path = LATEST
    """Run directory with a code dump; the options below start from its settings. On several
    processes: torchrun --nproc-per-node 2 -- -m pipelines.train_prior --run RUN, since torchrun
    has a --run of its own."""
    resume: bool = False
    """Go on from the last checkpoint; the options must be the same, except for those that change
    no result."""
    device: Device = "auto"
    prior: PriorConfig
    """The prior."""
    prior_training: TrainingConfig
    """Its training."""
    prior_from: Path | None = None
    """Run whose prior this one starts from, with a new schedule; model, code grids and classes must
    be the same. None starts from random weights."""
    prior_augmentation: PriorAugmentationConfig = field(default_factory=PriorAugmentationConfig)
    """Other views of the training images that it learns from; the codes must have been dumped with
    them."""


def main() -> None:
    """Reads the options and trains."""
    argv = sys.argv[1:]
    directory, config = named_run(argv)
    options = parse(
        TrainPriorOptions,
        default=TrainPriorOptions(
            prior=with_prior_kind(config.prior, argv),
            prior_training=config.prior_training,
            prior_from=config.prior_from,
            prior_augmentation=config.prior_augmentation,
        ),
    )
    config = replace(
        config,
        prior=options.prior,
        prior_training=options.prior_training,
        prior_from=options.prior_from and options.prior_from.expanduser().resolve(),
        prior_augmentation=options.prior_augmentation,
    )

    from pipelines.runs.stage_two import train_prior_of_run

    train_prior_of_run(directory, config, options.device, resume=options.resume)
    say(f"next: python -m pipelines.sample {directory.option}")


if __name__ == "__main__":
    run_command(main)
