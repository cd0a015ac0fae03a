"""The runs of a sweep as a plot: bits against PSNR, with the Pareto front."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.files.atomic import atomic_path
from pipelines.sweeps.row import SweepRow
from pipelines.sweeps.table import pareto_front

_MARKERS = "osD^vP*X<>ph"
_PANEL = (5.6, 4.8)  # inches
_LEGEND_WIDTH = 1.6
_DOTS_PER_INCH = 120


def save_sweep_plot(path: Path, rows: Sequence[SweepRow]) -> None:
    """Writes `sweep_plot(rows)` to a PNG file, replacing what was there."""
    with atomic_path(path) as partial:
        sweep_plot(rows).savefig(partial, format="png", dpi=_DOTS_PER_INCH)


def sweep_plot(rows: Sequence[SweepRow]) -> Figure:
    """Plots PSNR against raw bits per image and, with priors, against bits under them.

    Each kind of quantizer has a marker; points are labelled with codebook sizes if these differ. A
    stepped line is the Pareto front. Runs without metrics, and those whose reconstructions are
    exact (infinite PSNR), have no point.
    """
    rows = [row for row in rows if math.isfinite(row.values.get("psnr", math.inf))]
    panels = {"bits_per_image": "bits per image before entropy coding"}
    if any(row.has("prior") for row in rows):
        panels["prior_bits_per_image"] = "bits per image under the prior"
    size = (_PANEL[0] * len(panels) + _LEGEND_WIDTH, _PANEL[1])
    figure = Figure(figsize=size, layout="constrained")
    for number, (bits, label) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), number)
        axes.set_xlabel(label)
        axes.set_ylabel("PSNR on the test split, dB")
        axes.grid(alpha=0.3)
        _plot(axes, rows, bits)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:  # next to the panels, where it hides no point
        figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    return figure


def _plot(axes: Axes, rows: Sequence[SweepRow], bits: str) -> None:
    """Plots the rows that have the metric `bits`, and their Pareto front."""
    known = [(row.values[bits], row.values["psnr"], row) for row in rows if bits in row.values]
    if not known:
        axes.text(0.5, 0.5, "no finished run yet", ha="center", transform=axes.transAxes)
        return
    points = [(b, psnr) for b, psnr, _ in known]
    front = sorted(set(itertools.compress(points, pareto_front(points))))
    axes.plot(
        *zip(*front, strict=True),
        drawstyle="steps-post",
        color="0.6",
        zorder=1,
        label="Pareto front",
    )
    # Kinds keep their colour and marker from panel to panel, whether or not they have points.
    for number, kind in enumerate(dict.fromkeys(row.kind for row in rows)):
        own = [(b, psnr) for b, psnr, row in known if row.kind == kind]
        if not own:
            continue
        axes.plot(
            *zip(*own, strict=True),
            linestyle="none",
            marker=_MARKERS[number % len(_MARKERS)],
            color=f"C{number % 10}",
            label=kind,
        )
    if len({row.codebook_size for row in rows}) > 1:
        for b, psnr, row in known:
            axes.annotate(
                str(row.codebook_size),
                (b, psnr),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize="x-small",
            )
