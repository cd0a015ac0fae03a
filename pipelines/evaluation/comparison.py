"""Several evaluated runs side by side: a table, the same as CSV, and a plot."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.evaluation.record import Evaluation, Metric, Reference
from pipelines.evaluation.table import escaped
from pipelines.files.atomic import atomic_path, refuse_existing, write_text
from pipelines.report.formatting import format_number, format_with_std

TABLE, VALUES, PICTURE = "comparison.md", "comparison.csv", "comparison.png"
# The floor of a metric: what real images reach; of a score, what real images teach.
_FLOORS = ("train against test", "trained on real images")
# Metrics that the picture shows, where all or some runs have them.
_DRAWN = (
    *("psnr", "bits_per_image", "classification_accuracy"),
    *("fd_classifier", "fd_images", "fd_efficientnet", "fid"),
    *("coverage_classifier", "coverage_images", "coverage_efficientnet", "coverage_inception"),
)
# What belongs to a run and not to how it was evaluated.
_OF_THE_RUN = {"vqvae", "prior"}
_BLUE, _VERMILLION, _GRAY = "#0072B2", "#D55E00", "#777777"
_PANEL_WIDTH, _BAR_HEIGHT, _DOTS_PER_INCH = 3.6, 0.42, 120


def write_comparison(evaluations: Sequence[Evaluation], directory: Path) -> Path:
    """Writes table, CSV and picture of a comparison to a new directory, and returns the directory.

    It is written whole or not at all.

    Raises:
        ValueError: There are fewer than two evaluations.
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
        figure = comparison_plot(evaluations)
        figure.savefig(partial / PICTURE, format="png", dpi=_DOTS_PER_INCH)
    return directory


def run_names(evaluations: Sequence[Evaluation]) -> list[str]:
    """Returns the runs' names; equal ones are numbered, and bytes that are no UTF-8 escaped."""
    names = [e.run.encode("utf-8", "backslashreplace").decode() for e in evaluations]
    return [
        f"{name} ({names[:i].count(name) + 1})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]


def best_runs(metrics: Sequence[Metric | None]) -> set[int]:
    """Returns the indices of the runs with the best value of a metric; none if only one has it.

    Values that differ by less than the larger of their standard deviations are all among the best.
    """
    known = {i: m for i, m in enumerate(metrics) if m is not None and not math.isnan(m.value)}
    if len(known) < 2 or any(metric.better == "neither" for metric in known.values()):
        return set()
    sign = 1 if next(iter(known.values())).better == "higher" else -1
    best = max(known.values(), key=lambda metric: sign * metric.value)
    return {
        i
        for i, metric in known.items()
        if metric.value == best.value
        or abs(metric.value - best.value) < max(metric.std or 0, best.std or 0)
    }


def different_conditions(evaluations: Sequence[Evaluation]) -> list[str]:
    """Lists why metrics may not compare, in sentences: other data, options or numbers of images."""
    names = run_names(evaluations)
    flat = [evaluation.conditions.flat() for evaluation in evaluations]
    warnings = []
    for key in dict.fromkeys(key for settings in flat for key in settings):
        values = [settings.get(key) for settings in flat]
        if key not in _OF_THE_RUN and any(value != values[0] for value in values):
            each = ", ".join(f"{n} {v}" for n, v in zip(names, values, strict=True))
            warnings.append(f"{key} differs: {each}.")
    for key, first in _definitions([evaluation.metrics for evaluation in evaluations]).items():
        found = [(n, m) for n, e in zip(names, evaluations, strict=True) if (m := e.find(key))]
        if len({metric.num_images for _, metric in found}) > 1:
            each = ", ".join(f"{n} {metric.num_images:,}" for n, metric in found)
            warnings.append(f"{first.label} was measured on different numbers of images: {each}.")
    return warnings


def to_markdown(evaluations: Sequence[Evaluation]) -> str:
    """Formats `metrics_table` with warnings, and with an explanation of every metric."""
    names = run_names(evaluations)
    labels = [{"run": escaped(name)} for name in names]
    metrics = [evaluation.metrics for evaluation in evaluations]
    parts = ["# Comparison of runs\n", metrics_table(labels, metrics)]
    if differences := different_conditions(evaluations):
        parts.append("**Not measured alike:**\n")
        parts.append("".join(f"- {escaped(difference)}\n" for difference in differences))
    warnings = [
        f"- **{escaped(f'{name}: {warning}')}**\n"
        for name, evaluation in zip(names, evaluations, strict=True)
        for warning in evaluation.warnings
    ]
    if warnings:
        parts.append("".join(warnings))
    return "\n".join([*parts, _NOTES, explanations(metrics)])


def metrics_table(labels: Sequence[Mapping[str, str]], metrics: Sequence[Sequence[Metric]]) -> str:
    """Formats a Markdown table with a row per run and a column per metric, padded with spaces.

    The best of a column are bold; the floor of a metric stands in brackets behind it. `labels` are
    the first cells of each run by heading, as Markdown, with the same headings for all. A missing
    metric is a dash.
    """
    found = [{metric.name: metric for metric in of_run} for of_run in metrics]
    lines = [[*labels[0]] if labels else [], *([*label.values()] for label in labels)]
    num_labels = len(lines[0])
    for name, definition in _definitions(metrics).items():
        column = [of_run.get(name) for of_run in found]
        best = best_runs(column)
        lines[0].append(_heading(definition))
        for i, metric in enumerate(column):
            lines[i + 1].append("-" if metric is None else _cell(metric, bold=i in best))
    widths = [max(3, *map(len, cells)) for cells in zip(*lines, strict=True)]
    rule = ["-" * w if i < num_labels else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    pads = [str.ljust] * num_labels + [str.rjust] * (len(widths) - num_labels)
    padded = [
        [pad(cell, width) for pad, cell, width in zip(pads, line, widths, strict=True)]
        for line in (lines[0], rule, *lines[1:])
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


def explanations(metrics: Sequence[Sequence[Metric]]) -> str:
    """Formats a Markdown list that explains every metric of several runs."""
    return "".join(
        f"- **{escaped(_heading(metric))}**: {escaped(metric.explanation)}\n"
        for metric in _definitions(metrics).values()
    )


def to_csv(evaluations: Sequence[Evaluation]) -> str:
    """Formats a line per run and metric, unrounded: run, metric, value, std, floor and the rest."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("run", "group", "metric", "value", "unit", "better", "std", "repetitions")
    writer.writerow((*names, "num_images", "floor"))
    for name, evaluation in zip(run_names(evaluations), evaluations, strict=True):
        for metric in evaluation.metrics:
            reference = floor(metric)
            std = "" if metric.std is None else repr(metric.std)
            row = (name, metric.group, metric.name, repr(metric.value), metric.unit, metric.better)
            of_real = "" if reference is None else repr(reference.value)
            writer.writerow((*row, std, metric.repetitions, metric.num_images, of_real))
    return text.getvalue()


def floor(metric: Metric) -> Reference | None:
    """Returns what real images reach, if that was measured."""
    return next((r for r in metric.references if r.label in _FLOORS), None)


def comparison_plot(evaluations: Sequence[Evaluation]) -> Figure:
    """Plots a panel per key metric, with a bar per run, error bars and its floor."""
    names = run_names(evaluations)
    found = {key: [evaluation.find(key) for evaluation in evaluations] for key in _DRAWN}
    drawn = {
        key: metrics
        for key, metrics in found.items()
        if any(metric is not None and math.isfinite(metric.value) for metric in metrics)
    }
    columns = max(1, min(3, len(drawn)))
    rows = max(1, -(-len(drawn) // columns))
    size = (_PANEL_WIDTH * columns + 1.2, (_BAR_HEIGHT * len(names) + 1.2) * rows)
    figure = Figure(figsize=size, layout="constrained")
    if not drawn:
        figure.text(0.5, 0.5, "none of the key metrics was measured", ha="center")
    for number, metrics in enumerate(drawn.values(), 1):
        axes = figure.add_subplot(rows, columns, number)
        _draw_bars(axes, metrics)
        is_first = number % columns == 1 or columns == 1
        labels = names if is_first else [""] * len(names)
        axes.set_yticks(range(len(names)), labels, parse_math=False)
    return figure


def _draw_bars(axes: Axes, metrics: Sequence[Metric | None]) -> None:
    best = best_runs(metrics)
    for i, metric in enumerate(metrics):
        if metric is None or not math.isfinite(metric.value):
            axes.annotate("not measured", (0, i), xytext=(4, -3), textcoords="offset points")
            continue
        colour = _BLUE if i in best else _GRAY
        axes.barh(i, metric.value, xerr=metric.std, color=colour, height=0.6, capsize=3)
        reference = floor(metric)
        if reference is not None:
            axes.plot([reference.value] * 2, [i - 0.38, i + 0.38], color=_VERMILLION, linewidth=2)
    known = next(metric for metric in metrics if metric is not None)
    arrow = {"higher": ", higher is better", "lower": ", lower is better", "neither": ""}
    axes.set_title(_heading(known) + arrow[known.better], fontsize="medium")
    label = next((r.label for f in metrics if f is not None and (r := floor(f))), None)
    if label is not None:
        axes.set_xlabel(f"line: {label}", color=_VERMILLION)
    axes.set_ylim(len(metrics) - 0.5, -0.5)  # the first run on top
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _definitions(metrics: Sequence[Sequence[Metric]]) -> dict[str, Metric]:
    """Returns one metric of each name, in the order of the first run that has it."""
    found: dict[str, Metric] = {}
    for metric in (metric for of_run in metrics for metric in of_run):
        found.setdefault(metric.name, metric)
    return found


def _heading(metric: Metric) -> str:
    return f"{metric.label}, {metric.unit}" if metric.unit else metric.label


def _cell(metric: Metric, *, bold: bool) -> str:
    value, reference = format_with_std(metric.value, metric.std), floor(metric)
    value = f"**{value}**" if bold else value
    return value + (f" ({format_number(reference.value)})" if reference is not None else "")


_NOTES = """\
± is the standard deviation over repetitions. In brackets: what real images reach, measured in the
same way. **Bold**: the best of a column, and whatever is within one standard deviation of it.
"""
