from pathlib import Path

import pytest

from pipelines.data.config import DataConfig
from pipelines.data.folder_tree import find_images
from pipelines.data.outputs import is_output, refuse_in_data
from pipelines.runs.config import RunConfig
from pipelines.sweeps.directory import SweepConfig, SweepDirectory


@pytest.mark.parametrize(
    ("run", "left_out"),
    [("runs/deep/smoke", "runs"), ("a/r", "a/r")],
)
def test_find_images_leaves_out_runs(tree, begin_run, run, left_out):
    folder = tree("a/1.png", "b/2.png")
    if run.startswith("runs"):
        tree("runs/comparison.png", "runs/latest/x.png")
    begin_run(folder / run)
    paths, notes = find_images(folder)
    assert [path.name for path in paths] == ["1.png", "2.png"]
    assert notes == (f"1 folder of trained runs ({left_out}) is left out",)


def test_find_images_leaves_out_linked_runs(tree, begin_run, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    begin_run(elsewhere / "smoke")
    folder = tree("1.png")
    (folder / "runs").symlink_to(elsewhere)
    assert [path.name for path in find_images(folder)[0]] == ["1.png"]


def test_find_images_leaves_out_a_link_to_a_run_that_was_removed(tree):
    folder = tree("1.png", "runs/.keep")
    (folder / "runs" / "latest").symlink_to("smoke", target_is_directory=True)
    assert [path.name for path in find_images(folder)[0]] == ["1.png"]


def test_find_images_takes_a_class_that_is_called_runs(tree):
    assert len(find_images(tree("runs/1.png", "rests/2.png"))[0]) == 2


def test_sweeps_and_comparisons_are_outputs(tmp_path):
    for name in ("sweep", "comparison"):
        (tmp_path / name).mkdir()
    sweep = SweepConfig(
        quantizers=("ema",), codebook_sizes=(64,), with_prior=False, run=RunConfig()
    )
    SweepDirectory(tmp_path / "sweep").begin(sweep, None)
    for ending in ("md", "csv", "png"):
        (tmp_path / "comparison" / f"comparison.{ending}").touch()
    assert is_output(tmp_path / "sweep")
    assert is_output(tmp_path / "comparison")


@pytest.mark.parametrize("content", ["[" * 10_000, '{"run": 1}'])
def test_other_files_of_that_name_make_no_run(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert not is_output(tmp_path)


@pytest.mark.parametrize("out", ["new/images", "../photos/x.png"])
def test_output_among_the_images_of_a_run_is_refused(tree, monkeypatch, out):
    folder = tree("photos/a/1.png", "photos/b/2.png") / "photos"
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=f"^{out} lies in .*photos"):
        refuse_in_data(Path(out), DataConfig(source=f"folder:{folder}"))


@pytest.mark.parametrize("out", ["../x.png", "x.npz", "runs/x.png"])
def test_output_that_is_no_image_of_the_run_is_accepted(tree, begin_run, monkeypatch, out):
    folder = tree("a/1.png", "b/2.png")
    begin_run(folder / "runs" / "smoke")
    monkeypatch.chdir(folder)
    refuse_in_data(Path(out), DataConfig(source=f"folder:{folder}"))
    refuse_in_data(Path("x.png"), DataConfig())
    refuse_in_data(None, DataConfig(source=f"folder:{folder}"))
