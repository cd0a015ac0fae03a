"""The evaluation as a table that explains itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.evaluation.record import Evaluation, Group, Metric
from pipelines.report.markup import element, paragraph, section, table, text
from pipelines.report.numbers import joined, number, with_unit
from pipelines.report.run_record import RunRecord

GROUPS: dict[Group, str] = {
    "reconstruction": "Reconstruction",
    "generation": "Generation",
    "memorisation": "Memorisation",
    "prior": "Prior",
}
_BETTER = {"higher": "higher is better", "lower": "lower is better", "neither": ""}


def evaluation(record: RunRecord) -> str:
    """The metrics by group, or how to get them."""
    problems = [
        paragraph(text(f"{record.shareable(problem)}."), class_="note")
        for problem in record.problems
    ]
    found = record.evaluation
    if found is None:
        command = f"python -m pipelines.evaluate {record.option}"
        said = "" if problems else "This run has not been evaluated. "
        missing = paragraph(
            f"{said}Distances to real images, accuracy of a classifier "
            "trained on samples, and nearest training images come from ",
            element("code", text(command)),
            ", which also renews this page.",
        )
        return section("evaluation", "Evaluation", *problems, missing)
    said = "± is the standard deviation over repetitions (seeds or disjoint subsets)."
    parts = [paragraph(text(f"{warning}."), class_="warning") for warning in found.warnings]
    parts.append(paragraph(said, class_="note"))
    for group, title in GROUPS.items():
        metrics = [metric for metric in found.metrics if metric.group == group]
        if metrics:
            parts += [element("h3", title), _table(title, metrics)]
    parts += _notes(found)
    return section("evaluation", "Evaluation", *problems, *parts)


def _table(title: str, metrics: list[Metric]) -> str:
    rows = []
    for metric in metrics:
        name = text(metric.label) + element("small", text(metric.explanation))
        direction = _BETTER[metric.better]
        value = element("strong", text(with_unit(metric)))
        value += element("small", direction) if direction else ""
        rows.append((name, value, _references(metric), _images(metric)))
    header = ("Metric", "Value", "To be read beside", "Images")
    whole = table(f"{title} of this run", header, rows, numbers=(1, 3))
    return element("div", whole, class_="metrics")


def _references(metric: Metric) -> str:
    lines = [
        element(
            "span",
            text(f"{reference.label}: "),
            element("b", text(joined(number(reference.value), metric.unit))),
        )
        for reference in metric.references
    ]
    return "<br />".join(lines)


def _images(metric: Metric) -> str:
    times = element("small", f"{metric.repetitions} times") if metric.repetitions > 1 else ""
    return f"{metric.num_images:,}" + times


def _notes(found: Evaluation) -> list[str]:
    parts = []
    if found.notes:
        items = [element("li", text(note)) for note in found.notes]
        parts += [element("h3", "Notes"), element("ul", *items)]
    settings = ", ".join(_settings(found.conditions.to_dict()))
    parts.append(paragraph(text(f"Settings of the evaluation: {settings}."), class_="note"))
    return parts


def _settings(values: Mapping[str, Any]) -> Iterator[str]:
    """`samples 10,000`, `sampling temperature 1.0`; what is None was not asked for."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from (f"{name.replace('_', ' ')} {inner}" for inner in _settings(value))
        elif value is not None:
            number_or_word = f"{value:,}" if type(value) is int else f"{value}"
            yield f"{name.replace('_', ' ')} {number_or_word}"
