"""An evaluation as text and as Markdown."""

from dataclasses import replace

from tiny_evaluations import conditions

from pipelines.evaluation.record import Evaluation, Metric, Reference
from pipelines.evaluation.table import to_markdown, to_text

METRICS = (
    Metric(
        group="reconstruction",
        name="psnr",
        label="PSNR",
        value=24.751,
        unit="dB",
        better="higher",
        explanation="How exact.",
        num_images=10_000,
    ),
    Metric(
        group="generation",
        name="fd_classifier",
        label="FD-classifier",
        value=8.0,
        unit="",
        better="lower",
        explanation="How far.",
        num_images=500,
        std=0.25,
        references=(Reference(label="floor", value=0.4), Reference(label="other", value=2.9)),
    ),
)
EVALUATION = Evaluation(run="rgb", conditions=conditions(), metrics=METRICS, notes=("no FID",))


def test_text_aligns_values_below_their_groups():
    assert to_text(EVALUATION).splitlines() == [
        "reconstruction",
        "  PSNR              24.75 dB",
        "      How exact. (10,000 images)",
        "",
        "generation",
        "  FD-classifier  8.00 ± 0.25  floor 0.4, other 2.9",
        "      How far. (500 images)",
        "",
        "note: no FID",
    ]


def test_markdown_has_a_table_per_group():
    lines = to_markdown(EVALUATION).splitlines()
    assert lines[0] == "# Evaluation of rgb"
    assert "| PSNR | 24.75 dB |  | 10,000 | How exact. |" in lines
    assert "| FD-classifier | 8.00 ± 0.25 | floor 0.4, other 2.9 | 500 | How far. |" in lines
    assert lines.index("## Reconstruction") < lines.index("## Generation")
    assert lines[-1] == "- no FID"


def test_markdown_is_not_broken_by_names():
    record = replace(
        EVALUATION,
        run="a|b*",
        metrics=(replace(METRICS[0], label="x|y", explanation="<b>"),),
        notes=("a_b",),
        warnings=("copies*",),
    )
    lines = to_markdown(record).splitlines()
    assert lines[0] == "# Evaluation of a\\|b\\*"
    assert lines[2] == "- **copies\\***"
    assert "| x\\|y | 24.75 dB |  | 10,000 | \\<b\\> |" in lines
    assert lines[-1] == "- a\\_b"


def test_text_has_the_warnings_before_the_notes():
    lines = to_text(replace(EVALUATION, warnings=("copies",))).splitlines()
    assert lines[-3:] == ["WARNING: copies", "", "note: no FID"]
