"""`python -m pipelines.tune_sampling`: which temperature and guidance make the best samples."""

from __future__ import annotations

from pipelines.cli.command import parse, run_command
from pipelines.runs.directory import RunDirectory
from pipelines.tuning.options import TuneSamplingOptions


def main() -> None:
    """Reads the options and tries."""
    options = parse(TuneSamplingOptions)
    directory = RunDirectory(options.run)
    directory.config()  # refuses another directory early
    options.check()

    from pipelines.tuning.search import tune_sampling

    tune_sampling(directory, options)


if __name__ == "__main__":
    run_command(main)
