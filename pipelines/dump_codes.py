"""`python -m pipelines.dump_codes`: the code grids of a run's whole data set."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.cli.command import parse, run_command
from pipelines.cli.echo import say
from pipelines.cli.options import Device
from pipelines.data.location import DataLocation
from pipelines.runs.directory import LATEST
from pipelines.runs.kinds import named_run
from pipelines.runs.prior_augmentation import PriorAugmentationConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DumpOptions:
    """Encode every image of a run's data with its VQ-VAE and write the codes to RUN/codes."""

    run: Path = LATEST
    """Run directory with a trained VQ-VAE."""
    device: Device = "auto"
    data: DataLocation = field(default_factory=DataLocation)
    """Where the run's images are now."""
    prior_augmentation: PriorAugmentationConfig = field(default_factory=PriorAugmentationConfig)
    """Other views of the training images whose codes are written too, for a prior to learn from;
    its shares are only recorded here."""


def main() -> None:
    """Reads the options and dumps."""
    directory, config = named_run(sys.argv[1:])
    options = parse(DumpOptions, default=DumpOptions(prior_augmentation=config.prior_augmentation))
    data = options.data.of(config.data)
    config = replace(config, data=data, prior_augmentation=options.prior_augmentation)

    from pipelines.runs.codes import dump_codes_of_run

    dump_codes_of_run(directory, config, options.data, options.device)
    say(f"next: python -m pipelines.train_prior {directory.option}")


if __name__ == "__main__":
    run_command(main)
