"""The runs of a sweep as a figure: bits against PSNR, with the pareto front."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.files.atomic import atomic_path
from pipelines.sweeps.table import SweepRow, pareto_front

_MARKERS = "osD^vP*X<>ph"
_PANEL = (5.6, 4.8)  # inches
_LEGEND_WIDTH = 1.6
_DOTS_PER_INCH = 120


def save_sweep_figure(path: Path, rows: Sequence[SweepRow]) -> None:
    """Writes `sweep_figure(rows)` to a PNG file, replacing what was there."""
    with atomic_path(path) as partial:
        sweep_figure(rows).savefig(partial, format="png", dpi=_DOTS_PER_INCH)


def sweep_figure(rows: Sequence[SweepRow]) -> Figure:
    """PSNR against raw bits per image and, where priors were trained, against bits under them.

    One marker per kind of quantizer, each point labelled with its codebook size where the rows
    differ in it; a stepped line is the pareto front, the best PSNR for at most so many bits. Runs
    without figures, and those whose reconstructions are exact (infinite PSNR), have no point.
    """
    rows = [row for row in rows if row.psnr is not None and math.isfinite(row.psnr)]
    raw = [row.bits_per_image for row in rows]
    under_prior = [row.prior_bits_per_image for row in rows]
    panels = [("bits per image before entropy coding", raw)]
    if any(bits is not None for bits in under_prior):
        panels.append(("bits per image under the prior", under_prior))
    size = (_PANEL[0] * len(panels) + _LEGEND_WIDTH, _PANEL[1])
    figure = Figure(figsize=size, layout="constrained")
    for number, (label, bits) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        axes.set_xlabel(label)
        axes.set_ylabel("PSNR on the test split, dB")
        axes.grid(alpha=0.3)
        _draw(axes, rows, bits)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:  # beside the panels, where it hides no point
        figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    return figure


def _draw(axes: Axes, rows: Sequence[SweepRow], bits: Sequence[float | None]) -> None:
    """Puts rows with their bits (None: no point) and the pareto front into a panel."""
    points = [(b, row.psnr, row) for b, row in zip(bits, rows, strict=True)]
    known = [(b, psnr, row) for b, psnr, row in points if b is not None and psnr is not None]
    if not known:
        axes.text(0.5, 0.5, "no finished run yet", ha="center", transform=axes.transAxes)
        return
    are_on_it = pareto_front([(b, psnr) for b, psnr, _ in known])
    front = sorted({(b, psnr) for b, psnr, _ in itertools.compress(known, are_on_it)})
    axes.plot(
        [b for b, _ in front],
        [psnr for _, psnr in front],
        drawstyle="steps-post",
        color="0.6",
        zorder=1,
        label="pareto front",
    )
    # Kinds keep their colour and marker from panel to panel, whether or not they have points.
    for number, kind in enumerate(dict.fromkeys(row.kind for row in rows)):
        own = [(b, psnr) for b, psnr, row in known if row.kind == kind]
        if not own:
            continue
        axes.plot(
            [b for b, _ in own],
            [psnr for _, psnr in own],
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
