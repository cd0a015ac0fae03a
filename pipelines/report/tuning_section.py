"""The sampling settings that were tried, and how near their samples came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from pipelines.report.markup import element, paragraph, table, text
from pipelines.report.numbers import format_with_std, number
from pipelines.report.run_record import RunRecord
from pipelines.tuning.record import MeasuredSettings
from stage2_prior.sampling.settings import SamplingSettings


def tried_settings(record: RunRecord) -> list[str]:
    """A heading and a table, or how to get them where that can be."""
    tuning, title = record.tuning, element("h3", "Settings that were tried")
    if record.tuning_problem is not None:
        problem = text(f"{record.shareable(record.tuning_problem)}.")
        return [title, paragraph(problem, class_="note")]
    if tuning is None:
        if not record.data.num_classes:
            return []  # there is no feature classifier to try them by
        command = element("code", text(f"python -m pipelines.tune_sampling {record.option}"))
        return [
            paragraph(
                "Which settings bring samples nearest to images kept back says ", command, "."
            )
        ]
    best = [tuning.nearest, *tuning.within_noise]
    sets = len(tuning.nearest.distances)
    said = (
        f"Distance of {sets} times {tuning.images_per_set:,} samples from as many images of the "
        "validation split, in the features of a classifier; of as many training images, which it "
        f"has learned from, {number(tuning.floor)}. In bold: the nearest, and those that chance "
        f"may have put behind it.{_in_common([one.settings for one in tuning.measured])}"
    )
    header = ("Temperature", "Guidance scale", "FD-classifier", "Right class")
    rows = [_row(one, best=one in best) for one in tuning.measured]
    return [
        title,
        paragraph(text(said), class_="note"),
        element("div", table("Settings that were tried", header, rows, numbers=(1, 2, 3))),
    ]


def _row(one: MeasuredSettings, *, best: bool) -> tuple[str, str, str, str]:
    distance = text(format_with_std(one.distance, one.spread))
    return (
        number(one.settings.temperature),
        number(one.settings.guidance_scale),
        element("strong", distance) if best else distance,
        "-" if one.agreement is None else f"{number(100 * one.agreement, 3)}%",
    )


def _in_common(settings: Sequence[SamplingSettings]) -> str:
    """What all settings share and is not the default; those without guidance have no schedule."""
    default = asdict(SamplingSettings())
    shared = [name for name in default if name not in ("temperature", "guidance_scale", "compile")]
    differing = [
        f"{name.replace('_', ' ')} {value}"
        for name in shared
        for value in sorted({getattr(one, name) for one in settings} - {default[name]})
    ]
    return f" All with {', '.join(differing)}." if differing else ""
