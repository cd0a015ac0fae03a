"""The measured sampling settings as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from pipelines.report.formatting import format_number, format_with_std, typeset
from pipelines.report.markup import element, paragraph, table, text
from pipelines.report.run_record import RunRecord
from pipelines.tuning.record import MeasuredSettings, describe_settings
from stage2_prior.sampling.settings import SamplingSettings


def tried_settings(record: RunRecord) -> list[str]:
    """Returns a heading and a table, or the command that measures settings."""
    tuning, title = record.tuning, element("h3", "Sampling settings")
    if record.tuning_problem is not None:
        problem = text(f"{record.shareable(record.tuning_problem)}.")
        return [title, paragraph(problem, class_="note")]
    if tuning is None:
        command = element("code", text(f"python -m pipelines.tune_sampling {record.option}"))
        return [paragraph("Measure sampling settings on the validation split: ", command)]
    best = [tuning.nearest, *tuning.within_noise]
    sets = len(tuning.nearest.distances)
    note = (
        f"{tuning.metric}, the kernel distance of {sets} times {tuning.images_per_set:,} samples "
        f"from {tuning.num_images:,} images of the validation split; of as many training images, "
        f"{format_number(tuning.floor)}. In bold: the nearest, and those not significantly "
        f"farther. Chosen: {describe_settings(tuning.settings)}."
        f"{_in_common([one.settings for one in tuning.measured])}"
    )
    header = ("Temperature", "Guidance scale", tuning.metric, "Right class")
    rows = [_row(one, best=one in best) for one in tuning.measured]
    return [
        title,
        paragraph(text(note), class_="note"),
        element("div", table("Sampling settings", header, rows, numbers=(1, 2, 3))),
    ]


def _row(one: MeasuredSettings, *, best: bool) -> tuple[str, str, str, str]:
    distance = text(typeset(format_with_std(one.distance, one.spread)))
    return (
        format_number(one.settings.temperature),
        format_number(one.settings.guidance_scale),
        element("strong", distance) if best else distance,
        "" if one.agreement is None else f"{format_number(100 * one.agreement, 3)}%",
    )


def _in_common(settings: Sequence[SamplingSettings]) -> str:
    """Lists options other than the defaults; settings without guidance have no schedule."""
    default = asdict(SamplingSettings())
    shared = [name for name in default if name not in ("temperature", "guidance_scale", "compile")]
    differing = [
        f"{name.replace('_', ' ')} {value}"
        for name in shared
        for value in sorted({getattr(one, name) for one in settings} - {default[name]})
    ]
    return f" All with {', '.join(differing)}." if differing else ""
