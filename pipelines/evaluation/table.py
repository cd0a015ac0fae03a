"""An evaluation as text: aligned columns for a terminal, and Markdown."""

from __future__ import annotations

import math
import textwrap

from pipelines.evaluation.record import Evaluation, Metric
from pipelines.evaluation.rounding import rounded_to_std

_HEADINGS = ("metric", "value", "beside it", "images")
_WIDTH = 100


def to_text(evaluation: Evaluation) -> str:
    """The metrics by group, each with what to read it beside and what it means."""
    rows = [_cells(metric) for metric in evaluation.metrics]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines, group = [], None
    for metric, row in zip(evaluation.metrics, rows, strict=True):
        if metric.group != group:
            group = metric.group
            lines += ["", group]
        lines.append(f"  {row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]}".rstrip())
        words = f"{metric.explanation} ({metric.num_images:,} images)"
        lines += textwrap.wrap(words, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    for kind, sentences in (("WARNING", evaluation.warnings), ("note", evaluation.notes)):
        lines += ["", *(f"{kind}: {sentence}" for sentence in sentences)] if sentences else []
    return "\n".join(lines).strip("\n")


def to_markdown(evaluation: Evaluation) -> str:
    """The warnings, one table per group, and the notes."""
    lines = [f"# Evaluation of {escaped(evaluation.run)}"]
    if evaluation.warnings:
        lines += ["", *(f"- **{escaped(warning)}**" for warning in evaluation.warnings)]
    for group in dict.fromkeys(metric.group for metric in evaluation.metrics):
        lines += ["", f"## {group.capitalize()}", ""]
        lines += [f"| {' | '.join(_HEADINGS)} | meaning |", "|---|---:|---|---:|---|"]
        for metric in evaluation.metrics:
            if metric.group == group:
                cells = map(escaped, (*_cells(metric), metric.explanation))
                lines.append(f"| {' | '.join(cells)} |")
    if evaluation.notes:
        lines += ["", *(f"- {escaped(note)}" for note in evaluation.notes)]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown, in a table or out of it, takes as it is."""
    return "".join("\\" + c if c in "|*_<>`\\" else c for c in text).replace("\n", " ")


def _cells(metric: Metric) -> tuple[str, str, str, str]:
    value = format_with_std(metric) + (f" {metric.unit}" if metric.unit else "")
    beside = ", ".join(f"{r.label} {number_text(r.value)}" for r in metric.references)
    return metric.label, value, beside, f"{metric.num_images:,}"


def format_with_std(metric: Metric) -> str:
    """`8.03 ± 0.12`, without the unit: to two digits of the std, to four where there is none.

    A std that is not finite tells nothing and is left out.
    """
    value, std = metric.value, metric.std
    if std is None or not (math.isfinite(value) and math.isfinite(std)):
        return number_text(value)
    rounded = rounded_to_std(value, std)
    return number_text(value) + " ± 0" if rounded is None else " ± ".join(rounded)


def number_text(value: float) -> str:
    """Four significant digits, all digits of larger numbers."""
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
