"""Samples, guidance and temperature strips and reconstructions as HTML."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.report import tuning_section
from pipelines.report.formatting import format_number
from pipelines.report.images import MAX_CLASSES, ReportImages, Strip, columns_for
from pipelines.report.markup import element, paragraph, section, text
from pipelines.report.pictures import picture_row
from pipelines.report.run_record import RunRecord
from pipelines.tuning.record import describe_settings


def samples(record: RunRecord, images: ReportImages) -> str:
    """Returns a row of samples per class."""
    if not images.samples:
        return ""
    by_class = bool(images.samples[0].name)
    settings = describe_settings(record.settings)
    note = f"The first samples of seed {images.seed}, not selected ({settings})."
    trained = sum(count > 0 for count in record.data.train_images_per_class)
    if by_class and trained > MAX_CLASSES:
        note += f" The first {MAX_CLASSES} of {trained} classes with training images."
    command = f"python -m pipelines.sample {record.option} --n 64"
    return section(
        "samples",
        "Samples by class" if by_class else "Samples",
        paragraph(text(note)),
        _strips(images.samples, "samples"),
        *_nearest(images),
        paragraph("More samples: ", element("code", text(command)), class_="note"),
    )


def strips(record: RunRecord, images: ReportImages) -> str:
    """Returns rows of samples under several guidance scales and temperatures."""
    if not images.temperatures:
        return ""
    and_class = " and one class" if record.data.num_classes else ""
    parts = [
        paragraph(f"Each column has one seed{and_class}: only the setting changes."),
    ]
    if images.guidance:
        parts += [
            element("h3", "Guidance scale"),
            paragraph(
                "1 is the trained conditional distribution; higher is more typical of the class "
                "and less varied.",
                class_="note",
            ),
            _strips(images.guidance, "guidance scale"),
        ]
    parts += [
        element("h3", "Temperature"),
        paragraph("Divides the logits: below 1 less varied, above 1 more varied.", class_="note"),
        _strips(images.temperatures, "temperature"),
        *tuning_section.tried_settings(record),
    ]
    title = "Guidance and temperature" if images.guidance else "Temperature"
    return section("strips", title, *parts)


def reconstructions(record: RunRecord, images: ReportImages) -> str:
    """Returns test images above their reconstructions."""
    if images.originals is None or images.reconstructions is None:
        problem = text(record.shareable(images.problem))
        note = paragraph(problem, class_="note") if problem else ""
        return section("reconstructions", "Reconstructions", note)
    count, _, _, width = images.originals.shape
    columns = columns_for(width)
    rows = []
    for start in range(0, count, columns):
        part = slice(start, start + columns)
        pair = [images.originals[part], images.reconstructions[part]]
        rows.append(picture_row(pair, "Test images above their reconstructions"))
    figure = element(
        "figure",
        *rows,
        element("figcaption", "Upper rows: test images. Lower rows: their reconstructions."),
        class_="rows",
    )
    codes = sum(grid.num_codes for grid in record.grids)
    plural = "s" if codes != 1 else ""
    note = f"Images of the test split, encoded into {codes:,} code{plural} and decoded."
    return section("reconstructions", "Reconstructions", paragraph(text(note)), figure)


def _nearest(images: ReportImages) -> list[str]:
    """Returns a row of samples above their nearest training images; empty without the data."""
    row = images.nearest
    if row is None:
        return []
    near, far = (format_number(bound(row.distances), 3) for bound in (min, max))
    note = (
        "Of all training images, the ones with the smallest root mean square difference of the "
        f"pixels: {near} to {far} of 255. A copy would look the same."
    )
    figure = element(
        "figure",
        picture_row([row.samples, row.training], "Samples above their nearest training images"),
        element("figcaption", "Upper rows: samples. Lower rows: their nearest training images."),
        class_="rows",
    )
    return [element("h3", "Nearest training images"), paragraph(note, class_="note"), figure]


def _strips(strips: Sequence[Strip], what: str) -> str:
    rows = []
    for strip in strips:
        name = f"{what}: {strip.name}" if strip.name else what
        caption = element("figcaption", text(strip.name)) if strip.name else ""
        rows.append(element("figure", caption, picture_row([strip.images], name), class_="strip"))
    alone = "" if strips[0].name else " alone"
    return element("div", *rows, class_="strips" + alone)
