"""`python -m pipelines.benchmark`: how fast a recipe's models train and sample on this machine."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from pipelines.cli.command import parse, run_command
from pipelines.cli.options import require_positive
from pipelines.runs.config import RunConfig
from pipelines.runs.kinds import recipe_defaults


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkOptions:
    """Time training steps, sampling and quantization with random data; nothing is written.

    Each time is the median over the repetitions (of sampling and of other software at most 5),
    after one that is not counted, printed with the fastest and the slowest. With the extra
    `bench` vector-quantize-pytorch's quantizer is timed too, both without restarts.
    """

    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    """What would be trained; the data are not read."""
    image_shape: tuple[int, int, int] = (1, 28, 28)
    """Channels, height and width of the random images."""
    repetitions: int = 20
    """How often each thing is timed."""
    part: Literal["all", "stages", "quantizer", "priors"] = "all"
    """What is timed: training and sampling of both stages, the quantizer's search, or both (all);
    or the priors' samplers, GPT-2 and a PixelCNN without caches, which takes minutes."""


def main() -> None:
    """Reads the options and measures."""
    options = parse(BenchmarkOptions, default=BenchmarkOptions(run=recipe_defaults(sys.argv[1:])))
    require_positive(options, "repetitions")

    from pipelines.benchmarks.run_all import run_benchmarks

    run_benchmarks(
        options.run,
        options.image_shape,
        repetitions=options.repetitions,
        part=options.part,
    )


if __name__ == "__main__":
    run_command(main)
