"""The record of an evaluation: what is written is what is read."""

import json
import math
from dataclasses import replace

import pytest

from pipelines.evaluation.evaluation_record import Evaluation, Figure, Reference


def figure(**changes):
    values = {
        "group": "generation",
        "name": "fid",
        "label": "FID",
        "value": 8.5,
        "unit": "",
        "better": "lower",
        "explanation": "How far samples are from test images.",
        "num_images": 100,
        "spread": 0.25,
        "repetitions": 3,
        "references": (Reference(label="train against test", value=0.5),),
    }
    return Figure(**(values | changes))


def evaluation(*figures):
    return Evaluation(
        run="rgb",
        settings={"samples": 100, "sampling": {"top_p": None}},
        figures=figures,
        notes=("FID was not measured",),
        seconds={"samples": 1.5},
        environment={"torch": "2.9"},
    )


def test_record_comes_back_as_it_was(tmp_path):
    written = evaluation(figure(), figure(name="psnr", spread=None, references=()))
    written.write(tmp_path / "evaluation.json")
    assert Evaluation.read(tmp_path / "evaluation.json") == written


def test_alarms_come_back_and_older_records_have_none(tmp_path):
    path = tmp_path / "evaluation.json"
    written = replace(evaluation(figure()), alarms=("copies",))
    written.write(path)
    assert Evaluation.read(path) == written
    record = json.loads(path.read_text())
    del record["alarms"]
    path.write_text(json.dumps(record))
    assert Evaluation.read(path).alarms == ()


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinite_figures_come_back(value, tmp_path):
    references = (Reference(label="floor", value=value),)
    written = evaluation(figure(value=value, references=references))
    written.write(tmp_path / "evaluation.json")
    read = Evaluation.read(tmp_path / "evaluation.json").figures[0]
    assert (read.value, read.references) == (value, references)


def test_figure_that_is_no_number_comes_back(tmp_path):
    evaluation(figure(value=math.nan)).write(tmp_path / "evaluation.json")
    assert math.isnan(Evaluation.read(tmp_path / "evaluation.json").figures[0].value)


def test_older_record_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text("old")
    evaluation(figure()).write(path)
    assert Evaluation.read(path) == evaluation(figure())
    assert list(tmp_path.iterdir()) == [path]


def test_figure_is_found_by_name():
    record = evaluation(figure(), figure(name="psnr"))
    assert record.find("psnr") is record.figures[1]
    assert record.find("ssim") is None


def test_missing_record_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"an evaluated run is required, but .* not exist"):
        Evaluation.read(tmp_path / "evaluation.json")


def without_version(record):
    del record["format_version"]


def later_version(record):
    record["format_version"] = 99


def without_a_field(record):
    del record["figures"][0]["explanation"]


def unknown_field(record):
    record["mood"] = "good"


def words_for_a_number(record):
    record["figures"][0]["value"] = "eight"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_version, "'format_version'"),
        (later_version, "its format version is unknown"),
        (without_a_field, "a figure has other fields"),
        (unknown_field, "unexpected keyword argument 'mood'"),
        (words_for_a_number, "could not convert string to float: 'eight'"),
    ],
)
def test_damaged_record_is_refused(change, reason, tmp_path):
    path = tmp_path / "evaluation.json"
    evaluation(figure()).write(path)
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=f"is damaged .*{reason}.*: evaluate the run again with"):
        Evaluation.read(path)


@pytest.mark.parametrize("text", ["", "[]", '{"format_version": 1'])
def test_file_that_is_no_record_is_refused(text, tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="is damaged"):
        Evaluation.read(path)
