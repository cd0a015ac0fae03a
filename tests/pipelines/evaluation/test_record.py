"""The record of an evaluation: what is written is what is read."""

import math

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
        warnings=("copies",),
        seconds={"samples": 1.5},
        environment={"torch": "2.9"},
    )


def test_record_comes_back_as_it_was(tmp_path):
    written = evaluation(metric(), metric(name="psnr", std=None, references=()))
    written.write(tmp_path / "evaluation.json")
    assert Evaluation.read(tmp_path / "evaluation.json") == written


def test_conditions_by_name_have_the_options_among_them():
    settings = EvaluationSettings(samples=50, sampling=SamplingSettings(top_p=0.9))
    values = conditions(settings=settings).to_dict()
    assert (values["samples"], values["sampling"]["top_p"]) == (50, 0.9)
    assert values["feature_networks"] == {"classifier": "0123-4567"}
    assert "settings" not in values


def test_values_that_are_not_finite_come_back(tmp_path):
    references = (Reference(label="floor", value=-math.inf),)
    written = evaluation(
        metric(value=math.inf, references=references), metric(name="nan", value=math.nan)
    )
    written.write(tmp_path / "evaluation.json")
    infinite, nan = Evaluation.read(tmp_path / "evaluation.json").metrics
    assert (infinite.value, infinite.references) == (math.inf, references)
    assert math.isnan(nan.value)


def test_older_record_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text("old")
    evaluation(metric()).write(path)
    assert Evaluation.read(path) == evaluation(metric())
    assert list(tmp_path.iterdir()) == [path]


def test_metric_is_found_by_name():
    record = evaluation(metric(), metric(name="psnr"))
    assert record.find("psnr") is record.metrics[1]
    assert record.find("ssim") is None


def test_missing_record_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"evaluation\.json is required.*: evaluate"):
        Evaluation.read(tmp_path / "evaluation.json")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda record: record.update(format_version=99), "version 3 is required, got 99"),
        (lambda record: record["metrics"][0].pop("explanation"), r"metrics\.0\.explanation"),
        (lambda record: record["metrics"][0].update(value="eight"), r"metrics\.0\.value"),
        (lambda record: record["metrics"][0].update(num_images=0), r"num_images .* got 0"),
        (lambda record: record["conditions"]["settings"].update(samples=1), "samples .* got 1"),
    ],
)
def test_damaged_record_is_refused(change, reason, tmp_path):
    path = tmp_path / "evaluation.json"
    evaluation(metric()).write(path)
    edit_json(path, change)
    with pytest.raises(ValueError, match=rf"cannot be read \(.*{reason}.*: evaluate the run with"):
        Evaluation.read(path)


def test_file_that_is_no_record_is_refused(tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text('{"format_version": 3')
    with pytest.raises(ValueError, match=r"evaluation\.json cannot be read"):
        Evaluation.read(path)
