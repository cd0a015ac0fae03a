"""report.html: a run as one self-contained HTML page."""

from __future__ import annotations

import time
from importlib.resources import files
from pathlib import Path

import torch

from pipelines.data.image_set import DataSplits
from pipelines.files.atomic import write_text
from pipelines.files.environment import environment
from pipelines.report import evaluation_section, picture_sections, run_sections
from pipelines.report.images import ReportImages, make_images
from pipelines.report.markup import element, pairs, paragraph, section, text
from pipelines.report.run_record import RunRecord, read_run
from pipelines.runs.directory import RunDirectory
from pipelines.training.device import choose_device

_NAVIGATION = {
    "samples": "Samples",
    "strips": "Guidance and temperature",
    "reconstructions": "Reconstructions",
    "curves": "Learning curves",
    "codebook": "Codebook",
    "evaluation": "Evaluation",
    "settings": "Settings",
    "environment": "Time and machine",
}


def write_report(
    run: Path, *, splits: DataSplits | None = None, device: torch.device | None = None
) -> Path:
    """Writes `report.html` of a run, replacing an earlier one, and returns its path.

    Parts that do not exist yet are left out of the page.

    Args:
        run: Run directory.
        splits: The run's images; None loads them, and leaves reconstructions and nearest training
            images out if the data are gone.
        device: Where to sample; None takes the best available.
    """
    directory = RunDirectory(run)
    device = device or choose_device()
    record = read_run(directory.path)
    start = time.perf_counter()
    images = make_images(record, splits, device)
    seconds = [("Images of this page", time.perf_counter() - start)]
    if record.evaluation is not None:
        seconds += [(f"Evaluation: {k}", v) for k, v in record.evaluation.seconds.items()]
    write_text(directory.report, page(record, images, seconds, environment(device)))
    return directory.report


def page(
    record: RunRecord,
    images: ReportImages,
    seconds: list[tuple[str, float]],
    machine: dict[str, str],
) -> str:
    """Returns the whole page as well-formed XML.

    `seconds` are those of phases other than the two trainings; `machine` is the environment this
    page was written in.
    """
    sections = [
        picture_sections.samples(record, images),
        picture_sections.strips(record, images),
        picture_sections.reconstructions(record, images),
        run_sections.learning_curves(record),
        run_sections.codebook(record),
        evaluation_section.evaluation(record),
        run_sections.settings(record),
        _environment(record, seconds, machine),
    ]
    links = [
        element("li", element("a", title, href=f"#{key}"))
        for key, title in _NAVIGATION.items()
        if any(f'<section id="{key}"' in part for part in sections)
    ]
    title = f"{record.name}: report"
    style = files("pipelines.report").joinpath("style.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", text(title)),
        element("style", style),
    )
    header = element(
        "header",
        paragraph("Report of a run", class_="kicker"),
        element("h1", text(record.name)),
        paragraph(text(run_sections.lead(record)), class_="lead"),
        _unfinished(record),
        run_sections.summary(record),
        element("nav", element("ul", *links), aria_label="Parts of this page"),
    )
    footer = element(
        "footer", paragraph(text(f"Written on {machine['Written']} for {record.name}."))
    )
    body = element("body", header, element("main", *sections), footer)
    return "<!DOCTYPE html>\n" + element("html", head, body, lang="en") + "\n"


def _unfinished(record: RunRecord) -> str:
    """Returns a note on the stage that is not finished, or ""."""
    if record.vqvae is None:
        return paragraph("Stage one is not finished.", class_="note")
    if record.prior is None:
        return paragraph(
            "Stage two is not finished: there is no prior to sample from.", class_="note"
        )
    return ""


def _environment(
    record: RunRecord, seconds: list[tuple[str, float]], machine: dict[str, str]
) -> str:
    machines = {"This page was written on": machine}
    if record.evaluation is not None and record.evaluation.environment:
        machines["The evaluation was made on"] = record.evaluation.environment
    parts = [run_sections.timings(record, seconds)]
    for title, items in machines.items():
        values = [(text(name), text(value)) for name, value in items.items()]
        parts += [element("h3", title), pairs(values)]
    return section("environment", "Time and machine", *parts)
