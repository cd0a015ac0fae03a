"""Samples, strips and reconstructions as HTML."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.report import tuning_section
from pipelines.report.images import MAX_CLASSES, ReportImages, Strip, columns_for
from pipelines.report.markup import element, paragraph, section, text
from pipelines.report.pictures import picture_row
from pipelines.report.run_record import RunRecord


def samples(record: RunRecord, images: ReportImages) -> str:
    """A row of samples per class."""
    if not images.samples:
        return ""
    by_class = bool(images.samples[0].name)
    said = f"The first images of seed {images.seed}, none chosen, drawn from the model as it is"
    said += " (temperature 1, no guidance)."
    trained = sum(count > 0 for count in record.train_images_per_class)
    if by_class and trained > MAX_CLASSES:
        said += f" The first {MAX_CLASSES} of {trained} classes with training images."
    return section(
        "samples",
        "Samples by class" if by_class else "Samples",
        paragraph(text(said)),
        _strips(images.samples, "samples"),
        _command(record, "sample", "--n 64", "Draw more: "),
    )


def strips(record: RunRecord, images: ReportImages) -> str:
    """What guidance and temperature change, column by column."""
    if not images.temperatures:
        return ""
    parts = [
        paragraph(
            "Every column has one seed"
            + (" and one class" if record.data.num_classes else "")
            + ", so that what changes down a column is the setting alone."
        )
    ]
    if images.guidance:
        parts += [
            element("h3", "Guidance scale"),
            paragraph(
                "1 follows the label as trained; higher is more typical of the class and less "
                "varied.",
                class_="note",
            ),
            _strips(images.guidance, "guidance scale"),
        ]
    parts += [
        element("h3", "Temperature"),
        paragraph("Below 1 safer and less varied, above 1 wilder.", class_="note"),
        _strips(images.temperatures, "temperature"),
        *tuning_section.tried_settings(record),
    ]
    return section(
        "strips",
        "Guidance and temperature" if images.guidance else "Temperature",
        *parts,
    )


def reconstructions(record: RunRecord, images: ReportImages) -> str:
    """Test images above what the codes keep of them."""
    notes = [
        paragraph(text(record.shareable(problem)), class_="note") for problem in images.problems
    ]
    if images.originals is None or images.reconstructions is None:
        return section("reconstructions", "Reconstructions", *notes)
    count, _, _, width = images.originals.shape
    columns = columns_for(width)
    rows = []
    for start in range(0, count, columns):
        part = slice(start, start + columns)
        pair = [images.originals[part], images.reconstructions[part]]
        rows.append(picture_row(pair, "Test images above their reconstructions"))
    metric = element(
        "figure",
        *rows,
        element("figcaption", "Upper rows: test images. Lower rows: their reconstructions."),
        class_="rows",
    )
    said = (
        "Images of the test split, which no training step and no choice of weights has seen, "
        f"encoded into {_codes(record)} and decoded again."
    )
    return section("reconstructions", "Reconstructions", paragraph(text(said)), metric, *notes)


def _strips(strips: Sequence[Strip], what: str) -> str:
    rows = []
    for strip in strips:
        name = f"{what}: {strip.name}" if strip.name else what
        caption = element("figcaption", text(strip.name)) if strip.name else ""
        rows.append(
            element(
                "figure", caption, picture_row([np.asarray(strip.images)], name), class_="strip"
            )
        )
    alone = "" if strips[0].name else " alone"
    return element("div", *rows, class_="strips" + alone)


def _codes(record: RunRecord) -> str:
    count = sum(grid.num_codes for grid in record.grids)
    return f"{count:,} code{'s' if count != 1 else ''}"


def _command(record: RunRecord, name: str, options: str, before: str) -> str:
    command = f"python -m pipelines.{name} {record.option} {options}"
    return paragraph(before, element("code", text(command)), class_="note")
