"""`python -m pipelines.sample`: images from a trained run."""

from __future__ import annotations

import sys

from pipelines.cli.command import parse, run_command
from pipelines.cli.options import require_positive
from pipelines.generation.options import SampleOptions, sample_defaults


def main() -> None:
    """Reads the options and samples."""
    options = parse(SampleOptions, default=sample_defaults(sys.argv[1:]))
    require_positive(options, "n", "batch_size")

    from pipelines.generation.sampling import write_samples

    write_samples(options)


if __name__ == "__main__":
    run_command(main)
