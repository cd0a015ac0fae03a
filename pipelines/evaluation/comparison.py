"""Several evaluated runs side by side: a table, the same as CSV, and a figure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from pipelines.evaluation.record import Evaluation, Figure, Reference
from pipelines.evaluation.table import escaped, number_text, with_spread
from pipelines.files.atomic import atomic_path, refuse_existing, write_text

TABLE, VALUES, PICTURE = "comparison.md", "comparison.csv", "comparison.png"
# The floor of a figure: what real images reach; of a score, what real images teach.
_FLOORS = ("train against test", "trained on real images")
# Figures that the picture shows, where all or some runs have them.
_DRAWN = ("psnr", "bits_per_image", "fd_classifier", "fid", "classification_accuracy", "coverage")
# What belongs to a run and not to how it was evaluated.
_OF_THE_RUN = {"vqvae", "prior"}
_BLUE, _VERMILLION, _GRAY = "#0072B2", "#D55E00", "#777777"
_PANEL_WIDTH, _BAR_HEIGHT, _DOTS_PER_INCH = 3.6, 0.42, 120


def write_comparison(evaluations: Sequence[Evaluation], directory: Path) -> Path:
    """Writes `comparison.md`, `comparison.csv` and `comparison.png` to a new directory.

    Args:
        evaluations: Of at least two runs.
        directory: Must not exist; whole or not there at all.

    Returns:
        `directory`.

    Raises:
        ValueError: There are fewer than two evaluations.
        FileExistsError: `directory` exists.
    """
    if len(evaluations) < 2:
        raise ValueError(
            f"a comparison needs at least two evaluated runs, got {len(evaluations)}: name more "
            "runs with --run"
        )
    refuse_existing(directory)
    with atomic_path(directory) as partial:
        partial.mkdir()
        write_text(partial / TABLE, to_markdown(evaluations))
        write_text(partial / VALUES, to_csv(evaluations))
        drawing = comparison_figure(evaluations)
        drawing.savefig(partial / PICTURE, format="png", dpi=_DOTS_PER_INCH)
    return directory


def run_names(evaluations: Sequence[Evaluation]) -> list[str]:
    """The runs' names, numbered where they are the same; bytes that are no UTF-8 are escaped."""
    names = [e.run.encode("utf-8", "backslashreplace").decode() for e in evaluations]
    return [
        f"{name} ({names[:i].count(name) + 1})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]


def best_runs(figures: Sequence[Figure | None]) -> set[int]:
    """Which runs have the best value of a figure; none where only one has it or none is better.

    Values that differ by less than the larger of their spreads are not told apart: all of them are
    among the best.
    """
    known = {
        i: figure
        for i, figure in enumerate(figures)
        if figure is not None and not math.isnan(figure.value)
    }
    if len(known) < 2 or any(figure.better == "neither" for figure in known.values()):
        return set()
    sign = 1 if next(iter(known.values())).better == "higher" else -1
    best = max(known.values(), key=lambda figure: sign * figure.value)
    return {
        i
        for i, figure in known.items()
        if figure.value == best.value
        or abs(figure.value - best.value) < max(figure.spread or 0, best.spread or 0)
    }


def different_conditions(evaluations: Sequence[Evaluation]) -> list[str]:
    """Why figures may not compare, one sentence each: other data, options or numbers of images."""
    names = run_names(evaluations)
    flat = [dict(_flat(evaluation.conditions.to_dict())) for evaluation in evaluations]
    warnings = []
    for key in dict.fromkeys(key for settings in flat for key in settings):
        values = [settings.get(key) for settings in flat]
        if key not in _OF_THE_RUN and any(value != values[0] for value in values):
            each = ", ".join(f"{n} {v}" for n, v in zip(names, values, strict=True))
            warnings.append(f"{key.replace('_', ' ')} differs: {each}.")
    for name in _figure_names(evaluations):
        found = [evaluation.find(name) for evaluation in evaluations]
        numbers = {figure.num_images for figure in found if figure is not None}
        if len(numbers) > 1:
            each = ", ".join(
                f"{n} {figure.num_images:,}"
                for n, figure in zip(names, found, strict=True)
                if figure is not None
            )
            label = next(figure.label for figure in found if figure is not None)
            warnings.append(f"{label} was measured on different numbers of images: {each}.")
    return warnings


def to_markdown(evaluations: Sequence[Evaluation]) -> str:
    """A table of a row per run and a column per figure, with what it takes to read it.

    The best of a column are bold; the floor of a figure stands in brackets behind it.
    """
    names = run_names(evaluations)
    keys = _figure_names(evaluations)
    columns = [[evaluation.find(key) for evaluation in evaluations] for key in keys]
    header = ["run"]
    cells = [[escaped(name)] for name in names]
    for figures in columns:
        first = next(figure for figure in figures if figure is not None)
        best = best_runs(figures)
        header.append(_heading(first))
        for i, figure in enumerate(figures):
            cells[i].append("-" if figure is None else _cell(figure, bold=i in best))
    lines = [_row(header), _row(["---", *("---:" for _ in columns)]), *map(_row, cells)]
    parts = ["# Comparison of runs\n", "\n".join(lines) + "\n"]
    warnings = different_conditions(evaluations)
    if warnings:
        parts.append("**Not measured alike:**\n")
        parts.append("\n".join(f"- {escaped(warning)}" for warning in warnings) + "\n")
    alarms = [
        f"- **{escaped(f'{name}: {alarm}')}**"
        for name, evaluation in zip(names, evaluations, strict=True)
        for alarm in evaluation.alarms
    ]
    if alarms:
        parts.append("\n".join(alarms) + "\n")
    parts.append(_NOTES)
    explained = {
        figure.name: f"- **{escaped(_heading(figure))}**: {escaped(figure.explanation)}"
        for figures in columns
        for figure in figures
        if figure is not None
    }
    parts.append("\n".join(explained[key] for key in keys) + "\n")
    return "\n".join(parts)


def to_csv(evaluations: Sequence[Evaluation]) -> str:
    """A line per run and figure, unrounded: run, figure, value, spread, floor and the rest."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("run", "group", "figure", "value", "unit", "better", "spread", "repetitions")
    writer.writerow((*names, "num_images", "floor"))
    for name, evaluation in zip(run_names(evaluations), evaluations, strict=True):
        for figure in evaluation.figures:
            reference = floor(figure)
            writer.writerow(
                (
                    *(name, figure.group, figure.name, repr(figure.value), figure.unit),
                    *(figure.better, "" if figure.spread is None else repr(figure.spread)),
                    *(figure.repetitions, figure.num_images),
                    "" if reference is None else repr(reference.value),
                )
            )
    return text.getvalue()


def floor(figure: Figure) -> Reference | None:
    """What real images reach, where that was measured."""
    return next((r for r in figure.references if r.label in _FLOORS), None)


def comparison_figure(evaluations: Sequence[Evaluation]) -> Drawing:
    """A panel of bars per key figure, a bar per run, with spreads and the floor of each run."""
    names = run_names(evaluations)
    found = {key: [evaluation.find(key) for evaluation in evaluations] for key in _DRAWN}
    drawn = {
        key: figures
        for key, figures in found.items()
        if any(figure is not None and math.isfinite(figure.value) for figure in figures)
    }
    columns = max(1, min(3, len(drawn)))
    rows = max(1, -(-len(drawn) // columns))
    size = (_PANEL_WIDTH * columns + 1.2, (_BAR_HEIGHT * len(names) + 1.2) * rows)
    drawing = Drawing(figsize=size, layout="constrained")
    if not drawn:
        drawing.text(0.5, 0.5, "none of the key figures was measured", ha="center")
    for number, figures in enumerate(drawn.values(), 1):
        axes = drawing.add_subplot(rows, columns, number)
        _draw_bars(axes, figures)
        is_first = number % columns == 1 or columns == 1
        labels = names if is_first else [""] * len(names)
        axes.set_yticks(range(len(names)), labels, parse_math=False)
    return drawing


def _draw_bars(axes: Axes, figures: Sequence[Figure | None]) -> None:
    best = best_runs(figures)
    for i, figure in enumerate(figures):
        if figure is None or not math.isfinite(figure.value):
            axes.annotate("not measured", (0, i), xytext=(4, -3), textcoords="offset points")
            continue
        colour = _BLUE if i in best else _GRAY
        axes.barh(i, figure.value, xerr=figure.spread, color=colour, height=0.6, capsize=3)
        reference = floor(figure)
        if reference is not None:
            axes.plot([reference.value] * 2, [i - 0.38, i + 0.38], color=_VERMILLION, linewidth=2)
    known = next(figure for figure in figures if figure is not None)
    arrow = {"higher": ", higher is better", "lower": ", lower is better", "neither": ""}
    axes.set_title(_heading(known) + arrow[known.better], fontsize="medium")
    label = next((r.label for f in figures if f is not None and (r := floor(f))), None)
    if label is not None:
        axes.set_xlabel(f"line: {label}", color=_VERMILLION)
    axes.set_ylim(len(figures) - 0.5, -0.5)  # the first run on top
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _figure_names(evaluations: Sequence[Evaluation]) -> list[str]:
    """Names of all figures that any of them has, in the order of the first to have them."""
    return list(dict.fromkeys(f.name for evaluation in evaluations for f in evaluation.figures))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", value


def _heading(figure: Figure) -> str:
    return f"{figure.label}, {figure.unit}" if figure.unit else figure.label


def _cell(figure: Figure, *, bold: bool) -> str:
    value, reference = with_spread(figure), floor(figure)
    value = f"**{value}**" if bold else value
    return value + (f" ({number_text(reference.value)})" if reference is not None else "")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


_NOTES = """\
± is the standard deviation over repetitions. In brackets: what real images reach, measured in the
same way. **Bold**: the best of a column, and whatever differs from it by less than their spread.
"""
