"""The runs of a sweep as one table: rows, the pareto front, Markdown and CSV. Imports no torch."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

from pipelines.files.records import AnyFloat


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepRow:
    """One run of a sweep. Figures are of the whole test split, None where they were not measured.

    Of a quantizer with several grids, `usage` and `perplexity` are those of its worst grid (the
    lowest): one collapsed grid is not hidden behind healthy ones.
    """

    kind: str
    """Quantizer."""
    codebook_size: int
    """K that was asked for: log2(K) bits a grid position."""
    codebook_sizes: tuple[int, ...] | None = None
    """The number of codes of each grid; their product is K."""
    bits_per_position: float | None = None
    """Rate: bits a grid position takes before entropy coding, over all grids."""
    bits_per_image: float | None = None
    """Rate: bits an image takes before entropy coding."""
    bits_per_pixel: float | None = None
    """Rate: `bits_per_image` over height x width."""
    psnr: AnyFloat | None = None
    """dB; infinite where every reconstruction is exact."""
    ssim: float | None = None
    """Structural similarity (window 11x11) in [-1, 1], averaged over images; None for smaller
    images."""
    usage: float | None = None
    """Fraction of the codes that occur at all."""
    perplexity: float | None = None
    """Exp of the codes' entropy, in [1, codes of the grid]."""
    order_0_entropy: float | None = None
    """Bits per code of an ideal entropy coder that knows only how often each code occurs."""
    vqvae_seconds: float | None = None
    """Training time of stage one, its validations included."""
    images_per_second: float | None = None
    """Training images per second of stage one, its validations included."""
    parameters: int | None = None
    """Of the VQ-VAE; a codebook that gradient descent does not train is not among them."""
    bits_per_code: float | None = None
    """-log2 p(codes | labels) under the trained prior, per code of any grid."""
    prior_bits_per_image: float | None = None
    """-log2 p(codes | labels) under the trained prior, over all codes of all grids."""
    prior_seconds: float | None = None
    """Training time of the prior, its validations included."""
    failure: str | None = None
    """Why the run did not come to its end; None where it did."""


def pareto_front(points: Sequence[tuple[float | None, float | None]]) -> list[bool]:
    """Which of the points (bits, quality) are on the pareto front: few bits, high quality.

    A point is on it if no other has at most its bits and at least its quality, one of the two
    strictly; of points that are equal in both, all are on it or none. A point with a None is not.
    """
    known = [(b, q) for b, q in points if b is not None and q is not None]
    front: set[tuple[float, float]] = set()
    best = -math.inf
    for bits, group in itertools.groupby(sorted(set(known)), key=lambda point: point[0]):
        quality = max(q for _, q in group)
        if quality > best:
            front.add((bits, quality))
            best = quality
    return [point in front for point in points]


def rate_front(rows: Sequence[SweepRow]) -> list[bool]:
    """The pareto front of PSNR against raw bits per image."""
    return pareto_front([(row.bits_per_image, row.psnr) for row in rows])


def prior_front(rows: Sequence[SweepRow]) -> list[bool]:
    """The pareto front of PSNR against bits per image under the prior."""
    return pareto_front([(row.prior_bits_per_image, row.psnr) for row in rows])


def to_csv(rows: Sequence[SweepRow]) -> str:
    """One line per row with every field unrounded, `on_front` and `on_prior_front`.

    A figure that was not measured is an empty cell; sizes of several grids are joined by `+`.
    """
    text = io.StringIO()
    names = [f.name for f in fields(SweepRow) if f.name != "failure"]
    names += ["on_front", "on_prior_front", "failure"]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row, front, under_prior in zip(rows, rate_front(rows), prior_front(rows), strict=True):
        values = asdict(row)
        values["codebook_sizes"] = _sizes(row)
        writer.writerow(values | {"on_front": front, "on_prior_front": under_prior})
    return text.getvalue()


def to_markdown(rows: Sequence[SweepRow]) -> str:
    """The rows as a Markdown table, padded so that it can be read as it is.

    What a prior gives has columns only where a prior was trained. The first figure that a failed
    run does not have reads `failed`; `*` marks the pareto fronts.
    """
    with_prior = any(row.bits_per_code is not None or _failed_in_prior(row) for row in rows)
    columns = [column for column in _COLUMNS if with_prior or not column.of_prior]
    marked = [
        _Marked(row, front, under_prior)
        for row, front, under_prior in zip(rows, rate_front(rows), prior_front(rows), strict=True)
    ]
    cells = [[column.heading for column in columns]]
    cells += [[column.cell(row) or "-" for column in columns] for row in marked]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [_padded(line, widths) for line in (cells[0], rule, *cells[1:])]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def failures_to_markdown(rows: Sequence[SweepRow]) -> str:
    """The failed runs, each with its sentence, as a list; empty where there are none."""
    return "".join(
        f"- {row.kind} with {row.codebook_size} codes failed: {row.failure}\n"
        for row in rows
        if row.failure is not None
    )


NOTES = """\
All figures are of the whole test split; the validation split chose the weights of each run. Each
row is one training with one seed: a difference smaller than that between two seeds says nothing.
Whoever picks a row by this table has chosen by the test split, which flatters the row picked.

- **bits/position, bits/image, bits/pixel**: rate before entropy coding, over all grids of codes.
- **PSNR**: over all pixels of the split. **SSIM**: mean over images and inner pixels, 11x11 window;
  `-` for images smaller than that. Both on 8-bit images.
- **front, prior front**: `*` where no other row has at most as many bits per image (before entropy
  coding; under the prior) and at least as high a PSNR, one of the two strictly.
- **usage, perplexity**: of the worst grid where a quantizer has several.
- **entropy**: bits per code that an ideal order-0 entropy coder needs.
- **prior bits/code, prior bits/image**: -log2 p(codes) under the trained prior, given the label
  where there are labels; an image has all codes of all grids.
- **train s, images/s**: of stage one with its validations; **prior s**: of the prior.
- **parameters**: of the VQ-VAE; a codebook that gradient descent does not train is not counted.
"""
"""What the columns mean and how far the figures carry, for below the table."""


class _Marked(NamedTuple):
    """A row and whether it is on either front."""

    row: SweepRow
    front: bool
    prior_front: bool


class _Column(NamedTuple):
    """A column of the Markdown table."""

    heading: str
    cell: Callable[[_Marked], str]
    of_prior: bool = False


def _padded(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """The first cell to the left, as it holds words, and the others to the right."""
    first, *others = zip(cells, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]


def _sizes(row: SweepRow) -> str:
    return "+".join(str(size) for size in row.codebook_sizes or ())


def _number(name: str, spec: str) -> Callable[[_Marked], str]:
    def cell(marked: _Marked) -> str:
        value = getattr(marked.row, name)
        return "" if value is None else format(value, spec)

    return cell


def _failed_in_vqvae(row: SweepRow) -> bool:
    return row.failure is not None and row.psnr is None


def _failed_in_prior(row: SweepRow) -> bool:
    return row.failure is not None and row.psnr is not None


def _or_failed(
    cell: Callable[[_Marked], str], failed: Callable[[SweepRow], bool]
) -> Callable[[_Marked], str]:
    """`cell`, or `failed` for a row whose run failed before it had that figure."""
    return lambda marked: "failed" if failed(marked.row) else cell(marked)


_COLUMNS = (
    _Column("quantizer", lambda marked: marked.row.kind),
    _Column("size", lambda marked: str(marked.row.codebook_size)),
    _Column("codes", lambda marked: _sizes(marked.row)),
    _Column("bits/position", _number("bits_per_position", ".4g")),
    _Column("bits/image", _number("bits_per_image", ".6g")),
    _Column("bits/pixel", _number("bits_per_pixel", ".4f")),
    _Column("PSNR dB", _or_failed(_number("psnr", ".2f"), _failed_in_vqvae)),
    _Column("SSIM", _number("ssim", ".4f")),
    _Column("front", lambda marked: "*" if marked.front else ""),
    _Column("usage", _number("usage", ".1%")),
    _Column("perplexity", _number("perplexity", ".1f")),
    _Column("entropy", _number("order_0_entropy", ".3f")),
    _Column(
        "prior bits/code",
        _or_failed(_number("bits_per_code", ".3f"), _failed_in_prior),
        of_prior=True,
    ),
    _Column("prior bits/image", _number("prior_bits_per_image", ".1f"), of_prior=True),
    _Column("prior front", lambda marked: "*" if marked.prior_front else "", of_prior=True),
    _Column("train s", _number("vqvae_seconds", ".0f")),
    _Column("prior s", _number("prior_seconds", ".0f"), of_prior=True),
    _Column("parameters", _number("parameters", ",")),
    _Column("images/s", _number("images_per_second", ",.0f")),
)
