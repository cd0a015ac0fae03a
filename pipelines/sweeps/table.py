"""The runs of a sweep as one table, with the Pareto fronts of rate and distortion."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Sequence

from pipelines.evaluation.comparison import explanations, metrics_table
from pipelines.sweeps.row import DEFINITIONS, SweepRow

_NOTES = """\
All metrics are of the whole test split; the validation split chose the weights of each run. Each
row is one training with one seed: a difference smaller than that between two seeds is noise. To
choose a row by this table is to choose by the test split, which flatters that row. **Bold**: the
best of a column.

- **front, prior front**: `*` where no other row has at most as many bits per image (before entropy
  coding; under the prior) and at least as high a PSNR, one of the two strictly.
"""


def pareto_front(points: Sequence[tuple[float | None, float | None]]) -> list[bool]:
    """Selects the points (bits, quality) on the Pareto front: few bits, high quality.

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


def fronts(rows: Sequence[SweepRow]) -> tuple[list[bool], list[bool]]:
    """Finds the Pareto fronts of PSNR against raw bits per image, and bits under the prior."""
    before, under_prior = (
        pareto_front([(row.values.get(bits), row.values.get("psnr")) for row in rows])
        for bits in ("bits_per_image", "prior_bits_per_image")
    )
    return before, under_prior


def to_csv(rows: Sequence[SweepRow]) -> str:
    """Formats a line per row with every value unrounded, `on_front` and `on_prior_front`.

    A missing value is an empty cell; sizes of several grids are joined by `+`.
    """
    text = io.StringIO()
    metrics = [definition.name for definition in DEFINITIONS]
    names = ["kind", "codebook_size", "codebook_sizes", *metrics]
    names += ["on_front", "on_prior_front", "failure"]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row, front, under_prior in zip(rows, *fronts(rows), strict=True):
        first = {"kind": row.kind, "codebook_size": row.codebook_size}
        first["codebook_sizes"] = "+".join(map(str, row.codebook_sizes))
        values = dict(row.values)
        if "parameters" in values:
            values["parameters"] = int(values["parameters"])
        last = {"on_front": front, "on_prior_front": under_prior, "failure": row.failure}
        writer.writerow(first | values | last)
    return text.getvalue()


def to_markdown(rows: Sequence[SweepRow], num_images: int) -> str:
    """Formats the rows as a Markdown table; see `metrics_table`.

    `*` marks the Pareto fronts, and `failed` the stage in which a run failed. The prior has columns
    only where one was trained.
    """
    with_prior = any(row.has("prior") or (row.failure and row.has("vqvae")) for row in rows)
    labels = []
    for row, front, under_prior in zip(rows, *fronts(rows), strict=True):
        failed_first = row.failure and not row.has("vqvae")
        failed_then = row.failure and row.has("vqvae")
        labels.append(
            {
                "quantizer": row.kind,
                "size": str(row.codebook_size),
                "codes": "+".join(map(str, row.codebook_sizes)) or "-",
                "front": "failed" if failed_first else "*" if front else "-",
            }
        )
        if with_prior:
            labels[-1]["prior front"] = "failed" if failed_then else "*" if under_prior else "-"
    return metrics_table(labels, [row.metrics(num_images) for row in rows])


def document(head: str, rows: Sequence[SweepRow], num_images: int) -> str:
    """Formats `to_markdown` below a first line, with failures and explanations."""
    failures = "".join(
        f"- {row.kind} with {row.codebook_size} codes failed: {row.failure}\n"
        for row in rows
        if row.failure is not None
    )
    table = to_markdown(rows, num_images)
    explained = explanations([row.metrics(num_images) for row in rows])
    return "\n".join(part for part in (head, table, failures, _NOTES + explained) if part)
