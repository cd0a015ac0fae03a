"""`python -m pipelines.inpaint`: masked parts of images, filled by a prior of any order."""

from __future__ import annotations

from pipelines.cli.command import parse, run_command
from pipelines.cli.options import require_positive
from pipelines.generation.options import InpaintOptions


def main() -> None:
    """Reads the options and inpaints."""
    options = parse(InpaintOptions)
    require_positive(options, "n", "num_images", "batch_size")
    if options.hide is not None and options.mask is not None:
        raise ValueError("only one of --hide and --mask is possible, got both: leave one out")

    from pipelines.generation.inpainting import write_inpainted

    write_inpainted(options)


if __name__ == "__main__":
    run_command(main)
