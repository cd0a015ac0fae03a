"""An evaluation as text for a terminal, and as Markdown."""

from __future__ import annotations

import textwrap

from pipelines.evaluation.record import Evaluation, Metric
from pipelines.report.formatting import format_number, format_with_std, join_unit

_HEADINGS = ("metric", "value", "references", "images")
_WIDTH = 100


def to_text(evaluation: Evaluation) -> str:
    """Formats the metrics by group, each with its references and its explanation."""
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
    """Formats the warnings, one table per group, and the notes."""
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
    """Escapes text for Markdown, also within a table."""
    return "".join("\\" + c if c in "|*_<>`\\" else c for c in text).replace("\n", " ")


def _cells(metric: Metric) -> tuple[str, str, str, str]:
    value = join_unit(format_with_std(metric.value, metric.std), metric.unit)
    references = ", ".join(f"{r.label} {format_number(r.value)}" for r in metric.references)
    return metric.label, value, references, f"{metric.num_images:,}"
