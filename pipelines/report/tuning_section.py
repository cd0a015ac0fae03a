"""The sampling settings that were tried, and how near their samples came."""

from __future__ import annotations

from pipelines.evaluation.tuning_record import MeasuredSettings
from pipelines.report.markup import element, paragraph, table, text
from pipelines.report.numbers import number, with_spread
from pipelines.report.run_record import RunRecord


def tried_settings(record: RunRecord) -> list[str]:
    """A heading and a table, or how to get them where that can be."""
    tuning = record.tuning
    if tuning is None:
        if not record.data["num_classes"]:
            return []  # there is no feature classifier to try them by
        command = element("code", text(f"python -m pipelines.tune_sampling {record.option}"))
        return [
            paragraph(
                "Which settings bring samples nearest to images kept back says ", command, "."
            )
        ]
    title = element("h3", "Settings that were tried")
    if isinstance(tuning, str):
        return [title, paragraph(text(f"{record.shareable(tuning)}."), class_="note")]
    said = (
        f"Distance of {tuning.images_per_set:,} samples from as many images of the validation "
        f"split, in the features of a classifier; of as many training images it is "
        f"{number(tuning.floor)}. The nearest are in bold."
    )
    header = ("Temperature", "Guidance scale", "FD-classifier", "Right class")
    rows = [_row(one, best=one is tuning.nearest) for one in tuning.measured]
    return [
        title,
        paragraph(text(said), class_="note"),
        element("div", table("Settings that were tried", header, rows, numbers=(1, 2, 3))),
    ]


def _row(one: MeasuredSettings, *, best: bool) -> tuple[str, str, str, str]:
    distance = text(with_spread(one.distance, one.spread))
    return (
        number(one.settings.temperature),
        number(one.settings.guidance_scale),
        element("strong", distance) if best else distance,
        "-" if one.agreement is None else f"{number(100 * one.agreement, 3)}%",
    )
