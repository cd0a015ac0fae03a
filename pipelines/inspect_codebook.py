"""`python -m pipelines.inspect_codebook`: what is wrong with a codebook, and what to change."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipelines.cli.command import parse, run_command, say
from pipelines.data.location import DataLocation
from pipelines.data.outputs import refuse_in_data
from pipelines.files.atomic import atomic_path, refuse_existing, refuse_unwritable
from pipelines.files.records import encode_record
from pipelines.runs.directory import LATEST, RunDirectory

if TYPE_CHECKING:
    from pipelines.codebook.statistics import CodebookStatistics, GridStatistics

FORMAT_VERSION = 2
RECORD = "codebook.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectCodebookOptions:
    """Measure a run's codebook over a whole split, draw it, and say what to change."""

    run: Path = LATEST
    """Run directory with a trained VQ-VAE; it needs no prior."""
    split: Literal["train", "validation", "test"] = "train"
    """Which split of the data. The codebook was made for train, and only so many images tell a
    dead code from a rare one; test is for reporting, and no option should be chosen by it."""
    data: DataLocation = field(default_factory=DataLocation)
    """Where the run's images are now."""
    out: Path | None = None
    """New directory for the figures and codebook.json; None takes RUN/codebook, which belongs to
    this command and is renewed as a whole."""
    device: str = "auto"
    """Where to compute: auto (the first of cuda, mps, cpu), cpu, mps, cuda or cuda:N."""


def main() -> None:
    """Reads the options and inspects."""
    options = parse(InspectCodebookOptions)
    directory = RunDirectory(options.run)
    refuse_in_data(options.out, options.data.of(directory.config().data))
    out = options.out or directory.path / "codebook"
    check_output(out, renew=options.out is None)
    owner = directory.owned("measured", take_turns=True) if options.out is None else nullcontext()
    with owner:
        inspect_codebook(directory, options, out)


def inspect_codebook(directory: RunDirectory, options: InspectCodebookOptions, out: Path) -> None:
    """Measures the codebook of a run, writes what was found to `out`, and says it.

    Raises:
        FileNotFoundError: There is no VQ-VAE, or there are no data.
        ValueError: One of them is damaged, or the data are others.
    """
    from pipelines.codebook.diagnosis import diagnose
    from pipelines.codebook.plots import save_figures
    from pipelines.codebook.statistics import measure_codebook
    from pipelines.runs.batches import image_batches
    from pipelines.runs.messages import load_run_splits
    from pipelines.training.device import choose_device
    from stage1_vqvae.model import VQVAE

    device = choose_device(options.device)
    model = VQVAE.from_pretrained(directory.vqvae).to(device)
    images = load_run_splits(directory, options.data).by_name[options.split]
    statistics = measure_codebook(model, image_batches(images, device), len(images))
    findings = diagnose(statistics, model.config)
    record = {
        "split": options.split,
        "vqvae_sha256": model.weights_hash(),
        "quantizer": asdict(model.config.quantizer),
        "statistics": statistics.record(),
        "findings": [asdict(finding) for finding in findings],
    }
    with atomic_path(out, replace_directory=options.out is None) as partial:
        partial.mkdir()
        figures = save_figures(partial, model, statistics)
        (partial / RECORD).write_bytes(encode_record("codebook", FORMAT_VERSION, record))
    say(f"codebook of {directory.path} over {len(images):,} images of the {options.split} split")
    say(table(statistics))
    for finding in findings:
        say(f"\n{finding}")
    say(f"\nwrote {len(figures)} figures and {RECORD} to {out}")


def check_output(out: Path, *, renew: bool) -> None:
    """Refuses early, before any work, to write over what is not this command's.

    Args:
        out: The directory to write.
        renew: Whether an earlier output of this command may be replaced.

    Raises:
        FileExistsError: `out` exists, and is not to be renewed or something else.
        OSError: `out` cannot be written.
    """
    if not renew:
        refuse_existing(out)
    elif out.exists() and not (out / RECORD).is_file():
        raise FileExistsError(
            f"{out} is for this command's output, but it holds something else: move that away or "
            "choose another directory with --out"
        )
    refuse_unwritable(out)


def table(statistics: CodebookStatistics) -> str:
    """The main figures as lines of text: a line each, a column per grid."""
    columns = [_figures(grid) for grid in statistics.grids]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    if len(columns) > 1:
        rows.insert(0, ("", *(f"grid {i}" for i in range(len(columns)))))
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [
        "  ".join([f"  {row[0]:<{widths[0]}}", *map(str.rjust, row[1:], widths[1:])])
        for row in rows
    ]
    lines += [
        f"  error / spread of z_e: {_ratio(statistics.relative_error)}",
        f"  length of z_e: mean {statistics.mean_norm:.3g}, maximum {statistics.max_norm:.3g}",
    ]
    return "\n".join(lines)


def _figures(grid: GridStatistics) -> dict[str, str]:
    height, width = grid.position_entropy.shape
    bits = grid.position_entropy
    return {
        "codes": f"{grid.codebook_size:,} of {grid.vectors.shape[1]} dimensions",
        "positions per code": f"{grid.num_positions / grid.codebook_size:,.1f}",
        "usage": f"{grid.usage:.1%}",
        "dead codes": f"{grid.num_dead:,}",
        "duplicate codes (used, dead)": f"{grid.used_duplicates:,}, {grid.dead_duplicates:,}",
        "perplexity": f"{grid.perplexity:.1f}",
        "entropy, bits per code": f"{grid.entropy:.2f} of {math.log2(grid.codebook_size):.2f}",
        "entropy per position, minimum to maximum": f"{bits.min():.2f} to {bits.max():.2f}",
        "constant positions": f"{grid.constant_positions} of {height}x{width}",
        "share of the most frequent code, of ten": f"{grid.top_share(1):.1%}, "
        f"{grid.top_share(10):.1%}",
        "error / spread of what is quantized": _ratio(grid.relative_error),
        "lag of the codes behind z_e / spread": _ratio(grid.relative_lag),
        "distance of z_e / of the codes, from their mean": _ratio(grid.reach),
        "distance of dead codes / of z_e, from its mean": _ratio(grid.dead_distance),
        "median distance to the nearest code": _ratio(grid.neighbour_distance),
    }


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    run_command(main)
