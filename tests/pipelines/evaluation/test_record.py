"""The record of an evaluation: what is written is what is read."""

import math
from dataclasses import replace

import pytest
from tiny_evaluations import conditions
from tiny_runs import edit_json

from pipelines.evaluation.record import Evaluation, Metric, Reference
from pipelines.evaluation.settings import EvaluationSettings
from stage2_prior.sampling.settings import SamplingSettings


def metric(**changes):
    values = {
        "group": "generation",
        "name": "fid",
        "label": "FID",
        "value": 8.5,
        "unit": "",
        "better": "lower",
        "explanation": "How far samples are from test images.",
        "num_images": 100,
        "std": 0.25,
        "repetitions": 3,
        "references": (Reference(label="train against test", value=0.5),),
    }
    return Metric(**(values | changes))


def evaluation(*metrics):
    return Evaluation(
        run="rgb",
        conditions=conditions(),
        metrics=metrics,
        notes=("FID was not measured",),
        seconds={"samples": 1.5},
        environment={"torch": "2.9"},
    )


def test_record_comes_back_as_it_was(tmp_path):
    written = evaluation(metric(), metric(name="psnr", std=None, references=()))
    written.write(tmp_path / "evaluation.json")
    assert Evaluation.read(tmp_path / "evaluation.json") == written


def test_warnings_come_back(tmp_path):
    written = replace(evaluation(metric()), warnings=("copies",))
    written.write(tmp_path / "evaluation.json")
    assert Evaluation.read(tmp_path / "evaluation.json") == written


def test_conditions_by_name_have_the_options_among_them():
    settings = EvaluationSettings(samples=50, sampling=SamplingSettings(top_p=0.9))
    values = conditions(settings=settings).to_dict()
    assert (values["samples"], values["sampling"]["top_p"]) == (50, 0.9)
    assert values["feature_networks"] == {"classifier": "0123-4567"}
    assert "settings" not in values


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinite_figures_come_back(value, tmp_path):
    references = (Reference(label="floor", value=value),)
    written = evaluation(metric(value=value, references=references))
    written.write(tmp_path / "evaluation.json")
    read = Evaluation.read(tmp_path / "evaluation.json").metrics[0]
    assert (read.value, read.references) == (value, references)


def test_figure_that_is_no_number_comes_back(tmp_path):
    evaluation(metric(value=math.nan)).write(tmp_path / "evaluation.json")
    assert math.isnan(Evaluation.read(tmp_path / "evaluation.json").metrics[0].value)


def test_older_record_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text("old")
    evaluation(metric()).write(path)
    assert Evaluation.read(path) == evaluation(metric())
    assert list(tmp_path.iterdir()) == [path]


def test_figure_is_found_by_name():
    record = evaluation(metric(), metric(name="psnr"))
    assert record.find("psnr") is record.metrics[1]
    assert record.find("ssim") is None


def test_missing_record_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"evaluation\.json is required.*: evaluate"):
        Evaluation.read(tmp_path / "evaluation.json")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda record: record.pop("format_version"), "format_version"),
        (lambda record: record.update(format_version=99), "version 3 is required, got 99"),
        (lambda record: record["metrics"][0].pop("explanation"), r"metrics\.0\.explanation"),
        (lambda record: record.update(mood="good"), "mood"),
        (lambda record: record["metrics"][0].update(value="eight"), r"metrics\.0\.value"),
        (lambda record: record["metrics"][0].update(num_images=0), r"num_images .* got 0"),
        (lambda record: record["conditions"]["settings"].update(samples=1), "samples .* got 1"),
        (lambda record: record.update(notes="none"), "notes"),
    ],
)
def test_damaged_record_is_refused(change, reason, tmp_path):
    path = tmp_path / "evaluation.json"
    evaluation(metric()).write(path)
    edit_json(path, change)
    with pytest.raises(ValueError, match=rf"cannot be read \(.*{reason}.*: evaluate the run with"):
        Evaluation.read(path)


@pytest.mark.parametrize("text", ["", "[]", '{"format_version": 3', "[" * 100_000])
def test_file_that_is_no_record_is_refused(text, tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"evaluation\.json cannot be read"):
        Evaluation.read(path)
