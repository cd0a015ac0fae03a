"""The evaluation as a table with explanations."""

from __future__ import annotations

from pipelines.evaluation.record import Evaluation, Group, Metric
from pipelines.report.formatting import format_number, format_with_std, join_unit, typeset
from pipelines.report.markup import element, paragraph, section, table, text
from pipelines.report.run_record import RunRecord

GROUPS: dict[Group, str] = {
    "reconstruction": "Reconstruction",
    "generation": "Generation",
    "memorisation": "Memorisation",
    "prior": "Prior",
}
_BETTER = {"higher": "higher is better", "lower": "lower is better", "neither": ""}


def evaluation(record: RunRecord) -> str:
    """Returns the section of the metrics by group, or of the command that measures them."""
    problem = record.evaluation_problem
    note = paragraph(text(f"{record.shareable(problem)}."), class_="note") if problem else ""
    found = record.evaluation
    if found is None:
        command = f"python -m pipelines.evaluate {record.option}"
        missing = paragraph(
            "" if problem else "This run has not been evaluated. ",
            "Distances to real images, the accuracy of a classifier trained on samples, and "
            "distances to training images are measured by ",
            element("code", text(command)),
            ", which also renews this page.",
        )
        return section("evaluation", "Evaluation", note, missing)
    plus_minus = "± is the standard deviation over repetitions (seeds or disjoint subsets)."
    parts = [paragraph(text(f"{warning}."), class_="warning") for warning in found.warnings]
    parts.append(paragraph(plus_minus, class_="note"))
    for group, title in GROUPS.items():
        metrics = [metric for metric in found.metrics if metric.group == group]
        if metrics:
            parts += [element("h3", title), _table(title, metrics)]
    parts += _notes(found)
    return section("evaluation", "Evaluation", *parts)


def _table(title: str, metrics: list[Metric]) -> str:
    rows = []
    for metric in metrics:
        name = text(metric.label) + element("small", text(metric.explanation))
        direction = _BETTER[metric.better]
        measured = format_with_std(metric.value, metric.std)
        value = element("strong", text(typeset(join_unit(measured, metric.unit))))
        value += element("small", direction) if direction else ""
        rows.append((name, value, _references(metric), _images(metric)))
    header = ("Metric", "Value", "References", "Images")
    whole = table(f"{title} of this run", header, rows, numbers=(1, 3))
    return element("div", whole, class_="metrics")


def _references(metric: Metric) -> str:
    lines = [
        element(
            "span",
            text(f"{reference.label}: "),
            element("b", text(typeset(join_unit(format_number(reference.value), metric.unit)))),
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
    settings = ", ".join(
        f"{name} {value:,}" if type(value) is int else f"{name} {value}"
        for name, value in found.conditions.flat().items()
        if value is not None
    )
    parts.append(paragraph(text(f"Settings of the evaluation: {settings}."), class_="note"))
    return parts
