"""Runs and classes whose names are not UTF-8, as Linux allows."""

import shutil

import pytest
from faulty_disks import on_linux
from tiny_runs import TINY, python

from pipelines.generation.pipeline import GenerationPipeline
from pipelines.runs.directory import RunDirectory

CLASS, RUN = "caf\udce9", "run \udcfc"


def run_command(name, *arguments):
    ended = python("-m", f"pipelines.{name}", *arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@on_linux
@pytest.mark.slow
def test_run_of_any_name_is_trained_sampled_and_evaluated(tmp_path, photos):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "cat").rename(tmp_path / "photos" / CLASS)
    run = tmp_path / "runs" / RUN
    run_command("train_all", *TINY, "--data.source", f"folder:{tmp_path}/photos", "--out", run)
    assert RunDirectory(tmp_path / "runs" / "latest").path == run
    assert GenerationPipeline.from_pretrained(run).class_names == (CLASS, "dog")
    assert "report of" in (run / "report.html").read_text(encoding="utf-8").lower()
    out = run / "\udcff.png"
    said = run_command("sample", "--run", run, "--n", "2", "--label", CLASS, "--out", out)
    assert out.is_file()
    assert r"run \udcfc/\udcff.png" in said
    run_command("evaluate", "--quick", "--run", run)
    assert (run / "evaluation.md").is_file()
