"""An evaluation as text: aligned columns for a terminal, and Markdown."""

from __future__ import annotations

import textwrap

from pipelines.evaluation.evaluation_record import Evaluation, Figure

_HEADINGS = ("figure", "value", "beside it", "images")
_WIDTH = 100


def to_text(evaluation: Evaluation) -> str:
    """The figures by group, each with what to read it beside and what it means."""
    rows = [_cells(figure) for figure in evaluation.figures]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines, group = [], None
    for figure, row in zip(evaluation.figures, rows, strict=True):
        if figure.group != group:
            group = figure.group
            lines += ["", group]
        lines.append(f"  {row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]}".rstrip())
        words = f"{figure.explanation} ({figure.num_images:,} images)"
        lines += textwrap.wrap(words, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    lines += ["", *(f"note: {note}" for note in evaluation.notes)] if evaluation.notes else []
    return "\n".join(lines).strip("\n")


def to_markdown(evaluation: Evaluation) -> str:
    """One table per group, and the notes."""
    lines = [f"# Evaluation of {evaluation.run}"]
    for group in dict.fromkeys(figure.group for figure in evaluation.figures):
        lines += ["", f"## {group.capitalize()}", ""]
        lines += [f"| {' | '.join(_HEADINGS)} | meaning |", "|---|---:|---|---:|---|"]
        for figure in evaluation.figures:
            if figure.group == group:
                label, value, beside, images = _cells(figure)
                lines.append(f"| {label} | {value} | {beside} | {images} | {figure.explanation} |")
    if evaluation.notes:
        lines += ["", *(f"- {note}" for note in evaluation.notes)]
    return "\n".join(lines) + "\n"


def _cells(figure: Figure) -> tuple[str, str, str, str]:
    value = _number(figure.value)
    if figure.spread is not None:
        value += f" ± {figure.spread:.2g}"
    if figure.unit:
        value += f" {figure.unit}"
    beside = ", ".join(f"{r.label} {_number(r.value)}" for r in figure.references)
    return figure.label, value, beside, f"{figure.num_images:,}"


def _number(value: float) -> str:
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
