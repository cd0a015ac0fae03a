"""report.html: one page that shows a run, opens from disk and needs nothing else."""

from __future__ import annotations

import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.files.atomic import write_text
from pipelines.files.environment import environment
from pipelines.report import evaluation_section, picture_sections, run_sections
from pipelines.report.images import ReportImages, draw
from pipelines.report.markup import element, pairs, paragraph, section, text
from pipelines.report.run_record import RunRecord, read_run
from pipelines.runs.directory import RunDirectory
from pipelines.training.device import choose_device

if TYPE_CHECKING:
    import torch

    from pipelines.data.image_set import ImageSet

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
    run: Path, *, test: ImageSet | None = None, device: torch.device | None = None
) -> Path:
    """Draws and writes the report of a run, replacing an earlier one.

    Args:
        run: Run directory; whatever it does not have yet is left out of the page.
        test: The test split, if it is at hand; None loads it, and leaves the reconstructions out
            where the data are gone.
        device: Where to draw; None takes the best there is.

    Returns:
        The page, `report.html` in the run directory.

    Raises:
        FileNotFoundError: `run` is no run directory.
        ValueError: What it holds is damaged or does not belong together.
        OSError: The page cannot be written.
    """
    directory = RunDirectory(run)
    device = device or choose_device()
    record = read_run(directory.path)
    start = time.perf_counter()
    images = draw(record, test, device)
    seconds = [("Pictures of this page", time.perf_counter() - start)]
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
    """The whole page, well-formed as XML.

    Args:
        record: What is known of the run.
        images: Its pictures.
        seconds: What took time beside the two trainings.
        machine: On what this page was written.
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
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", text(title)),
        element("style", _style()),
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
    """What is still to be done, where a stage is not finished."""
    if record.vqvae is None:
        return paragraph("Stage one is not finished.", class_="note")
    if record.prior is None:
        return paragraph(
            "Stage two is not finished: there is no prior to draw samples from.", class_="note"
        )
    return ""


def _environment(
    record: RunRecord, seconds: list[tuple[str, float]], machine: dict[str, str]
) -> str:
    parts = [
        run_sections.timings(record, seconds),
        element("h3", "This page was written on"),
        pairs([(text(name), text(value)) for name, value in machine.items()]),
    ]
    if record.evaluation is not None and record.evaluation.environment:
        items = record.evaluation.environment.items()
        parts += [
            element("h3", "The evaluation was made on"),
            pairs([(text(name), text(value)) for name, value in items]),
        ]
    return section("environment", "Time and machine", *parts)


def _style() -> str:
    return files("pipelines.report").joinpath("style.css").read_text(encoding="utf-8")
