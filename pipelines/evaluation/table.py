"""An evaluation as text: aligned columns for a terminal, and Markdown."""

from __future__ import annotations

import math
import textwrap

from pipelines.evaluation.record import Evaluation, Figure
from pipelines.evaluation.rounding import rounded_to_spread

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
    for kind, sentences in (("ALARM", evaluation.alarms), ("note", evaluation.notes)):
        lines += ["", *(f"{kind}: {sentence}" for sentence in sentences)] if sentences else []
    return "\n".join(lines).strip("\n")


def to_markdown(evaluation: Evaluation) -> str:
    """The alarms, one table per group, and the notes."""
    lines = [f"# Evaluation of {escaped(evaluation.run)}"]
    if evaluation.alarms:
        lines += ["", *(f"- **{escaped(alarm)}**" for alarm in evaluation.alarms)]
    for group in dict.fromkeys(figure.group for figure in evaluation.figures):
        lines += ["", f"## {group.capitalize()}", ""]
        lines += [f"| {' | '.join(_HEADINGS)} | meaning |", "|---|---:|---|---:|---|"]
        for figure in evaluation.figures:
            if figure.group == group:
                cells = map(escaped, (*_cells(figure), figure.explanation))
                lines.append(f"| {' | '.join(cells)} |")
    if evaluation.notes:
        lines += ["", *(f"- {escaped(note)}" for note in evaluation.notes)]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown, in a table or out of it, takes as it is."""
    return "".join("\\" + c if c in "|*_<>`\\" else c for c in text).replace("\n", " ")


def _cells(figure: Figure) -> tuple[str, str, str, str]:
    value = with_spread(figure) + (f" {figure.unit}" if figure.unit else "")
    beside = ", ".join(f"{r.label} {number_text(r.value)}" for r in figure.references)
    return figure.label, value, beside, f"{figure.num_images:,}"


def with_spread(figure: Figure) -> str:
    """`8.03 ± 0.12`, without the unit: to two digits of the spread, to four where there is none.

    A spread that is not finite tells nothing and is left out.
    """
    value, spread = figure.value, figure.spread
    if spread is None or not (math.isfinite(value) and math.isfinite(spread)):
        return number_text(value)
    rounded = rounded_to_spread(value, spread)
    return number_text(value) + " ± 0" if rounded is None else " ± ".join(rounded)


def number_text(value: float) -> str:
    """Four significant digits, all digits of larger numbers."""
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
