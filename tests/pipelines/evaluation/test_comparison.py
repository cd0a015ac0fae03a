"""Several evaluated runs as a table and a metric."""

import csv
import io
import math
from dataclasses import replace

import pytest
from PIL import Image
from tiny_evaluations import conditions

from pipelines.evaluation.comparison import (
    best_runs,
    comparison_plot,
    different_conditions,
    run_names,
    to_csv,
    to_markdown,
    write_comparison,
)
from pipelines.evaluation.record import Evaluation, Metric, Reference
from pipelines.evaluation.settings import EvaluationSettings
from stage2_prior.sampling.settings import SamplingSettings


def metric(value, name="fd_classifier", **changes):
    values = {
        "group": "generation",
        "unit": "",
        "label": name.replace("_", " "),
        "better": "lower",
        "explanation": f"What {name} says.",
        "num_images": 100,
    }
    return Metric(name=name, value=value, **(values | changes))


def run(name, *metrics):
    return Evaluation(run=name, conditions=conditions(), metrics=metrics)


A = run(
    "a",
    metric(3.0, std=0.1, references=(Reference(label="train against test", value=0.4),)),
    metric(24.5, "psnr", unit="dB", better="higher"),
)
B = run(
    "b",
    metric(8.0, std=0.2),
    metric(26.25, "psnr", unit="dB", better="higher"),
    metric(0.5, "recall", better="higher"),
)


def rows(text):
    """Cells of the lines of the Markdown table."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_table_has_a_row_per_run_and_marks_the_best_of_each_column():
    header, _, *lines = rows(to_markdown([A, B]))
    assert header == ["run", "fd classifier", "psnr, dB", "recall"]
    assert lines == [
        ["a", "**3.00 ± 0.10** (0.4)", "24.5", "-"],
        ["b", "8.00 ± 0.20", "**26.25**", "0.5"],
    ]


def test_warnings_are_said_with_the_name_of_their_run():
    text = to_markdown([A, replace(B, warnings=("its samples are copies",))])
    assert [line for line in text.splitlines() if "copies" in line] == [
        "- **b: its samples are copies**"
    ]
    assert "**a:" not in text


def test_table_explains_every_metric():
    text = to_markdown([A, B])
    assert [line for line in text.splitlines() if line.startswith("- ")] == [
        "- **fd classifier**: What fd\\_classifier says.",
        "- **psnr, dB**: What psnr says.",
        "- **recall**: What recall says.",
    ]


def test_name_of_a_run_cannot_break_the_table():
    text = to_markdown([replace(A, run="x|y*"), B])
    assert "| x\\|y\\* | " in text


@pytest.mark.parametrize(
    ("metrics", "best"),
    [
        ([metric(1.0), metric(2.0)], {0}),
        ([metric(1.0, better="higher"), metric(2.0, better="higher")], {1}),
        ([metric(1.0), metric(1.0), metric(2.0)], {0, 1}),
        ([metric(1.0, std=0.1), metric(1.3, std=0.5), metric(2.0, std=0.1)], {0, 1}),
        ([metric(1.0, std=0.1), metric(1.3, std=0.1)], {0}),
        ([metric(1.0), None], set()),
        ([metric(1.0), None, metric(2.0)], {0}),
        ([metric(1.0, better="neither"), metric(2.0, better="neither")], set()),
        ([metric(math.nan), metric(1.0), metric(2.0)], {1}),
        ([metric(math.inf, better="higher"), metric(1.0, better="higher")], {0}),
        ([metric(math.inf, better="higher"), metric(math.inf, better="higher")], {0, 1}),
    ],
)
def test_best_runs_are_those_that_their_spreads_do_not_tell_apart(metrics, best):
    assert best_runs(metrics) == best


def test_runs_of_one_name_are_numbered():
    assert run_names([A, B, A]) == ["a (1)", "b", "a (2)"]


def test_other_options_are_named():
    settings = EvaluationSettings(samples=50, sampling=SamplingSettings(temperature=0.9))
    assert different_conditions([A, replace(B, conditions=conditions(settings=settings))]) == [
        "samples differs: a 100, b 50.",
        "sampling temperature differs: a 1.0, b 0.9.",
        "sampling compile differs: a auto, b off.",
    ]


def test_models_are_expected_to_differ_and_data_are_not():
    other = replace(B, conditions=conditions(vqvae="3", prior="4", data_fingerprint="89ab"))
    assert different_conditions([A, other]) == [
        "data fingerprint differs: a 0123456789abcdef, b 89ab."
    ]


def test_other_numbers_of_images_are_named_in_the_table():
    other = run("b", metric(8.0, num_images=2000))
    text = to_markdown([A, other])
    assert "**Not measured alike:**" in text
    assert "- fd classifier was measured on different numbers of images: a 100, b 2,000." in text


def test_runs_measured_alike_have_no_warning():
    assert different_conditions([A, B]) == []
    assert "Not measured alike" not in to_markdown([A, B])


def test_csv_has_every_metric_unrounded():
    exact = run("c", metric(1 / 3, std=1 / 7, repetitions=3, unit="bits"))
    lines = list(csv.DictReader(io.StringIO(to_csv([A, exact]))))
    assert [(line["run"], line["metric"]) for line in lines] == [
        ("a", "fd_classifier"),
        ("a", "psnr"),
        ("c", "fd_classifier"),
    ]
    assert (float(lines[0]["floor"]), lines[1]["floor"]) == (0.4, "")
    assert (float(lines[2]["value"]), float(lines[2]["std"])) == (1 / 3, 1 / 7)
    assert (lines[2]["unit"], lines[2]["repetitions"], lines[2]["num_images"]) == (
        "bits",
        "3",
        "100",
    )


def test_plot_has_bars_and_floor():
    psnr, distance = comparison_plot([A, B]).axes
    assert [bar.get_width() for bar in psnr.patches] == [24.5, 26.25]
    assert [bar.get_width() for bar in distance.patches] == [3.0, 8.0]
    floors = [line.get_xdata() for line in distance.lines if list(line.get_xdata()) == [0.4, 0.4]]
    assert len(floors) == 1
    assert distance.get_xlabel() == "line: train against test"
    assert psnr.get_title() == "psnr, dB, higher is better"
    assert [label.get_text() for label in psnr.get_yticklabels()] == ["a", "b"]


def test_plot_names_missing_metrics():
    (axes,) = comparison_plot([run("a"), run("b", metric(2.0, "fid"))]).axes
    assert [text.get_text() for text in axes.texts] == ["not measured"]


def test_plot_without_key_metrics_says_so():
    figure = comparison_plot([run("a"), run("b")])
    assert [text.get_text() for text in figure.texts] == ["none of the key metrics was measured"]


def test_comparison_is_written_to_a_new_directory(tmp_path):
    assert write_comparison([A, B], tmp_path / "both") == tmp_path / "both"
    written = sorted(path.name for path in (tmp_path / "both").iterdir())
    assert written == ["comparison.csv", "comparison.md", "comparison.png"]
    assert (tmp_path / "both" / "comparison.md").read_text() == to_markdown([A, B])
    with Image.open(tmp_path / "both" / "comparison.png") as image:
        image.verify()


def test_names_of_runs_are_drawn_whatever_their_characters(tmp_path):
    names = ["caf\udce9", r"$\frac$"]
    runs = [replace(A, run=name) for name in names]
    directory = write_comparison(runs, tmp_path / "new")
    assert (directory / "comparison.png").is_file()
    assert rb"caf\udce9" in (directory / "comparison.csv").read_bytes()
    labels = [label.get_text() for label in comparison_plot(runs).axes[0].get_yticklabels()]
    assert labels == [r"caf\udce9", r"$\frac$"]


def test_one_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least two evaluated runs, got 1: name more runs"):
        write_comparison([A], tmp_path / "one")
    assert list(tmp_path.iterdir()) == []


def test_directory_that_exists_is_refused(tmp_path):
    with pytest.raises(FileExistsError, match="a new path is required for the output"):
        write_comparison([A, B], tmp_path)
    assert list(tmp_path.iterdir()) == []
