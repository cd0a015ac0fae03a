"""The report of runs of every kind, whole or with missing parts."""

import base64
import io
import itertools
import math
import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from sealing import edit_record
from tiny_runs import TINY, KilledError, command, edit_json, tree, write_metrics

from pipelines.data.config import DataConfig
from pipelines.data.load import load_splits
from pipelines.evaluation.record import Metric
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.report.formatting import format_number
from pipelines.report.images import GUIDANCE_SCALES, TEMPERATURES
from pipelines.report.page import write_report
from pipelines.report.pictures import GAP, image_row, stacked
from pipelines.training.metrics_log import read_metrics
from stage1_vqvae.code_dump import read_code_dump
from stage1_vqvae.model import VQVAE
from stage2_prior.sampling.settings import SamplingSettings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory):
    """Four channels, not square, no labels, several grids, a PixelCNN."""
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 9, 4), dtype=np.uint8)
    folder = tmp_path_factory.mktemp("odd")
    np.savez(folder / "four.npz", images=images)
    kinds = ("--vqvae.quantizer.kind", "residual", "--prior.kind", "pixelcnn")
    # TINY without what only a quantizer of one grid has.
    first = TINY.index("--vqvae.quantizer.codebook-size")
    options = (*TINY[:first], *TINY[first + 4 :])
    command(
        "train_all",
        *options,
        *kinds,
        *("--vqvae.quantizer.base.codebook-size", "8", "--vqvae.quantizer.base.codebook-dim", "4"),
        *("--prior.kernel-size", "3", "--data.source", f"npz:{folder}/four.npz"),
        *("--out", folder / "run"),
    )
    return folder / "run"


def report(run):
    """The page as an XML tree, written anew."""
    return ElementTree.fromstring(write_report(run, device=CPU).read_text(encoding="utf-8"))


def words(node):
    return " ".join(" ".join(node.itertext()).split())


def part(page, key):
    return next((s for s in page.iter("section") if s.get("id") == key), None)


def pixels(image):
    data = image.get("src").removeprefix("data:image/png;base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as opened:
        return np.asarray(opened)


def strips(page, key):
    """The rows of images in a part of the page, by name."""
    found = {}
    for figure in part(page, key).iter("figure"):
        if figure.get("class") != "strip":
            continue
        blocks = [pixels(image) for image in figure.iter("img")]
        found[words(figure.find("figcaption"))] = blocks
    return found


def blocks_of(images):
    half = len(images) // 2
    return [image_row(images[:half]), image_row(images[half:])]


def test_training_leaves_a_report_with_every_section(rgb_run):
    page = ElementTree.fromstring((rgb_run / "report.html").read_text(encoding="utf-8"))
    keys = [section.get("id") for section in page.iter("section")]
    assert keys == [
        *("samples", "strips", "reconstructions", "curves", "codebook", "evaluation"),
        *("settings", "environment"),
    ]


def test_page_is_self_contained(rgb_run):
    page = ElementTree.fromstring((rgb_run / "report.html").read_text())
    assert not list(page.iter("script")) + list(page.iter("link")) + list(page.iter("iframe"))
    sources = [node.get("src") for node in page.iter() if node.get("src")]
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(a.get("href").startswith("#") for a in page.iter("a"))
    (style,) = page.iter("style")
    assert "url(" not in style.text
    assert "@import" not in style.text


def test_html_elements_are_closed_in_order(rgb_run):
    class Checker(HTMLParser):
        void = ("meta", "img", "br", "line", "circle", "polyline")

        def handle_starttag(self, tag, _):
            open_tags.append(tag)

        def handle_startendtag(self, tag, _):
            assert tag in self.void

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    open_tags = []
    text = (rgb_run / "report.html").read_text()
    assert text.startswith("<!DOCTYPE html>\n")
    Checker().feed(text)
    assert open_tags == []


@pytest.mark.parametrize("which", ["rgb_run", "odd_run"])
def test_page_has_alt_text_and_heading_order(which, request):
    page = ElementTree.fromstring((request.getfixturevalue(which) / "report.html").read_text())
    assert page.get("lang") == "en"
    assert page.find("head/title").text
    assert all(image.get("alt") for image in page.iter("img"))
    levels = [int(node.tag[1]) for node in page.iter() if re.fullmatch("h[1-6]", node.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    ids = [node.get("id") for node in page.iter() if node.get("id")]
    assert len(set(ids)) == len(ids)
    assert {a.get("href")[1:] for a in page.iter("a")} <= set(ids)


def test_samples_are_those_of_the_pipeline_class_by_class(rgb_run):
    page = ElementTree.fromstring((rgb_run / "report.html").read_text())
    labels = torch.arange(2).repeat_interleave(10)
    images = GenerationPipeline.from_pretrained(rgb_run)(20, labels, seed=0).numpy()
    found = strips(page, "samples")
    assert list(found) == ["0", "1"]
    for shown, expected in zip(found.values(), (images[:10], images[10:]), strict=True):
        for block, pixels_ in zip(shown, blocks_of(expected), strict=True):
            np.testing.assert_array_equal(block, pixels_)


def test_strips_have_the_same_seeds_under_each_setting(rgb_run):
    page = ElementTree.fromstring((rgb_run / "report.html").read_text())
    pipeline = GenerationPipeline.from_pretrained(rgb_run)
    settings = [SamplingSettings(guidance_scale=scale) for scale in GUIDANCE_SCALES]
    settings += [SamplingSettings(temperature=temperature) for temperature in TEMPERATURES]
    figures = list(part(page, "strips").iter("figure"))
    assert len(figures) == len(settings)
    for figure, setting in zip(figures, settings, strict=True):
        expected = blocks_of(pipeline(10, settings=setting, seed=0).numpy())
        for image, block in zip(figure.iter("img"), expected, strict=True):
            np.testing.assert_array_equal(pixels(image), block)


def test_reconstructions_stand_below_their_originals(rgb_run, rgb_file):
    page = ElementTree.fromstring((rgb_run / "report.html").read_text())
    originals = load_splits(DataConfig(source=f"npz:{rgb_file}")).test.images
    model = VQVAE.from_pretrained(rgb_run / "vqvae")
    decoded = model.decode(model.encode(torch.from_numpy(originals))).numpy()
    shown = [pixels(image) for image in part(page, "reconstructions").iter("img")]
    expected = [
        stacked([image_row(originals[s]), image_row(decoded[s])])
        for s in (slice(0, 3), slice(3, 6))
    ]
    assert len(shown) == 2
    for block, pixels_ in zip(shown, expected, strict=True):
        np.testing.assert_array_equal(block, pixels_)


def test_samples_stand_above_their_nearest_training_images(rgb_run, rgb_file):
    page = ElementTree.fromstring((rgb_run / "report.html").read_text())
    (figure,) = (f for f in part(page, "samples").iter("figure") if f.get("class") == "rows")
    shown = [pixels(image)[..., :3].astype(np.int64) for image in figure.iter("img")]
    training = load_splits(DataConfig(source=f"npz:{rgb_file}")).train.images.astype(np.int64)
    _, _, height, width = training.shape
    pairs = [
        (block[:height, x : x + width], block[-height:, x : x + width])
        for block in shown
        for x in range(0, block.shape[1], width + GAP)
    ]
    distances = []
    for sample, nearest in pairs:
        squared = ((training.transpose(0, 2, 3, 1) - sample) ** 2).mean(axis=(1, 2, 3))
        assert ((nearest - sample) ** 2).mean() == pytest.approx(squared.min())
        distances.append(squared.min() ** 0.5)
    nearest, farthest = (format_number(bound(distances), 3) for bound in (min, max))
    assert f"{nearest} to {farthest} of 255" in words(part(page, "samples"))


@pytest.mark.parametrize(("phase", "metric"), [("vqvae", "loss"), ("prior", "bits_per_code")])
def test_curves_of_a_stage_end_with_a_verdict_on_overfitting(run, phase, metric):
    rows = [r for r in read_metrics(run / "metrics.jsonl") if r.phase == phase]
    verdict = {"overfits": 1.0, "no overfitting": 8.0}
    for expected, train in verdict.items():
        write_metrics(
            run,
            [
                replace(r, values={metric: 8.0, f"train_{metric}": train})
                if r.kind == "validation"
                else r
                for r in rows
            ],
        )
        assert f"Verdict: {expected}" in words(part(report(run), "curves"))


def test_tiles_are_those_of_the_metrics_file(rgb_run):
    page = ElementTree.fromstring((rgb_run / "report.html").read_text())
    test = {r.phase: r.values for r in read_metrics(rgb_run / "metrics.jsonl") if r.kind == "test"}
    tiles = {words(d.find("dt")): words(d.find("dd")) for d in page.find(".//header/dl")}
    assert tiles["Test PSNR"].startswith(f"{test['vqvae']['psnr']:.4g} dB")
    assert tiles["Bits per code"].startswith(f"{test['prior']['bits_per_code']:.3g} ")
    assert f"{test['prior']['order_0_entropy']:.3g} without" in tiles["Bits per code"]
    assert tiles["Codes in use"].startswith(f"{100 * test['vqvae']['usage']:.3g}".rstrip("."))


def test_curves_hold_every_point_of_the_metrics_file(rgb_run):
    page = ElementTree.fromstring((rgb_run / "report.html").read_text())
    rows = [r for r in read_metrics(rgb_run / "metrics.jsonl") if r.phase == "prior"]
    (chart,) = [
        figure
        for figure in part(page, "curves").iter("figure")
        if figure.find("figcaption/span").text == "Bits per code"
    ]
    said = [c.find("title").text for c in chart.iter("circle") if c.find("title") is not None]
    assert said == [
        f"validation: {row.values['bits_per_code']:.4g} at {row.step}"
        for row in rows
        if row.kind == "validation"
    ]


def test_codebook_metrics_are_those_of_the_test_codes(rgb_run):
    page = ElementTree.fromstring((rgb_run / "report.html").read_text())
    codes = read_code_dump(rgb_run / "codes").splits["test"].codes[0].numpy()
    _, counts = np.unique(codes, return_counts=True)
    p = counts / counts.sum()
    entropy = -(p * np.log2(p)).sum()
    cells = [words(cell) for cell in part(page, "codebook").find(".//tbody/tr")]
    assert cells[1:] == [
        "8",
        f"{100 * len(counts) / 8:.1f}%",
        f"{2**entropy:.4g}",
        f"{entropy:.2f} of 3.00",
    ]


def test_every_grid_has_a_chart_and_a_row(odd_run):
    page = ElementTree.fromstring((odd_run / "report.html").read_text())
    grids = len(VQVAE.from_pretrained(odd_run / "vqvae").codebook_sizes)
    assert grids > 1
    assert len(list(part(page, "codebook").iter("figure"))) == grids
    assert len(part(page, "codebook").find(".//tbody")) == grids


def test_run_without_labels_has_samples_and_temperatures_but_no_guidance(odd_run):
    page = ElementTree.fromstring((odd_run / "report.html").read_text())
    assert part(page, "samples").find("h2").text == "Samples"
    assert part(page, "strips").find("h2").text == "Temperature"
    assert "no labels" in words(page.find(".//header"))


def test_names_of_classes_are_escaped(run):
    names = ['<b>"cat"</b> & co', "dog's\x1b\udcff"]
    edit_json(run / "config.json", lambda c: c["data"].update(class_names=names))
    assert list(strips(report(run), "samples")) == [names[0], "dog's\ufffd\ufffd"]


def test_prior_without_label_dropout_has_no_guidance(run):
    edit_record(run / "prior" / "config.json", lambda c: c["model"].update(label_dropout=0.0))
    assert part(report(run), "strips").find("h2").text == "Temperature"


def test_run_with_stage_one_alone_is_reported(run):
    shutil.rmtree(run / "prior")
    shutil.rmtree(run / "codes")
    rows = [row for row in read_metrics(run / "metrics.jsonl") if row.phase == "vqvae"]
    write_metrics(run, rows)
    page = report(run)
    keys = [section.get("id") for section in page.iter("section")]
    assert keys == ["reconstructions", "curves", "evaluation", "settings", "environment"]
    assert "Stage two is not finished" in words(page.find(".//header"))


def test_run_that_has_only_begun_is_reported(run):
    for path in run.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "config.json":
            path.unlink()
    page = report(run)
    assert "Stage one is not finished" in words(page.find(".//header"))
    assert tree(run) == ["config.json", "report.html"]


def test_run_whose_data_are_gone_goes_without_reconstructions(run):
    edit_json(run / "config.json", lambda c: c["run"]["data"].update(source="npz:gone.npz"))
    page = report(run)
    assert not list(part(page, "reconstructions").iter("img"))
    assert "need its images" in words(part(page, "reconstructions"))
    assert "gone.npz" in words(part(page, "reconstructions"))
    assert list(part(page, "samples").iter("img"))


def test_damaged_and_doubled_metrics_leave_the_page_as_it_was(run):
    before = words(part(report(run), "curves"))
    path = run / "metrics.jsonl"
    content = path.read_bytes()
    first = content.split(b"\n")[0]
    damaged = [
        first.replace(b'"kind"', b'"sort"'),
        first.replace(b'"loss"', b'"l\xff"'),
        b'{"phase": "vqvae", "kind": "test", "step": 1, "images_seen": 1, "seconds": 1, '
        b'"values": 5}',
        b"[" * 100_000,
        b"\0" * 100,
    ]
    path.write_bytes(content + content + b"\n".join([*damaged, first[:-10]]))
    assert words(part(report(run), "curves")) == before


def test_points_that_are_not_finite_are_left_out(run):
    rows = read_metrics(run / "metrics.jsonl")
    write_metrics(run, [replace(row, values=dict.fromkeys(row.values)) for row in rows])
    page = report(run)
    assert part(page, "curves") is None
    assert page.find(".//header/dl") is None


def test_run_that_was_not_evaluated_has_the_command(rgb_run):
    page = ElementTree.fromstring((rgb_run / "report.html").read_text())
    command_ = "python -m pipelines.evaluate --run runs/rgb"
    assert command_ in [code.text for code in part(page, "evaluation").iter("code")]


def test_evaluation_is_shown_format_with_std_floor_and_explanation(run, evaluation):
    evaluation().write(run / "evaluation.json")
    page = report(run)
    (row,) = part(page, "evaluation").find(".//tbody")
    assert [words(cell) for cell in row] == [
        "FD-classifier How far samples <are> from real images.",
        "8.03 \u00b1 0.12 lower is better",
        "train & test: 0.402",
        "1,234 3 times",
    ]
    said = words(part(page, "evaluation"))
    assert "FID was not measured: no weights" in said
    assert "Settings of the evaluation: samples 1,234, " in said
    assert ", sampling temperature 0.9, " in said
    assert "None" not in said
    assert "Evaluation: classifier 61 s" in words(part(page, "environment"))
    tiles = [words(d) for d in page.find(".//header/dl")]
    assert "FD-classifier 8.03 \u00b1 0.12 train & test: 0.402" in tiles


def test_warnings_are_first_in_the_tiles_and_in_the_section(run, evaluation):
    evaluation(warnings=("memorisation warning: <copies>",)).write(run / "evaluation.json")
    page = report(run)
    tile = page.find(".//header/dl")[0]
    assert (tile.get("class"), words(tile)) == (
        "warning",
        "Warning memorisation warning: <copies>.",
    )
    section = part(page, "evaluation")
    assert (section[1].get("class"), words(section[1])) == (
        "warning",
        "memorisation warning: <copies>.",
    )
    titles = [words(heading) for heading in section.iter("h3")]
    assert titles == ["Generation", "Notes"]


@pytest.mark.parametrize("name", ["vqvae", "prior"])
def test_evaluation_of_another_model_is_left_out_with_a_note(name, run, evaluation):
    made_with = replace(evaluation().conditions, **{name: "0" * 16})
    evaluation(conditions=made_with).write(run / "evaluation.json")
    page = report(run)
    said = words(part(page, "evaluation"))
    assert f"evaluation.json is of another {name} than the run has now" in said
    assert "FD-classifier" not in words(page)


@pytest.mark.parametrize("state", ["whole", "without data, evaluation damaged"])
def test_page_has_no_paths_of_this_machine(state, run, tmp_path, rgb_file):
    if state != "whole":
        source = f"npz:{tmp_path}/gone.npz"
        edit_json(run / "config.json", lambda c: c["run"]["data"].update(source=source))
        (run / "evaluation.json").write_text("{")
    page = write_report(run, device=CPU).read_text(encoding="utf-8")
    for folder in (tmp_path, rgb_file.parent):
        assert str(folder) not in page
    assert "--run runs/run" in page
    assert ("npz:rgb.npz" if state == "whole" else "npz:gone.npz") in page


def test_commands_quote_the_name_of_the_run(run):
    run = run.rename(run.with_name("a run"))
    codes = [code.text for code in report(run).iter("code")]
    assert "python -m pipelines.evaluate --run 'runs/a run'" in codes


def test_infinite_metrics_is_shown(run, evaluation):
    metric = Metric(
        group="reconstruction",
        name="psnr",
        label="PSNR",
        value=math.inf,
        unit="dB",
        better="higher",
        explanation="Exact.",
        num_images=6,
    )
    evaluation(metrics=(metric,)).write(run / "evaluation.json")
    assert "\u221e\u00a0dB" in "".join(part(report(run), "evaluation").itertext())


def test_damaged_evaluation_is_noted_in_the_report(run):
    (run / "evaluation.json").write_text("{")
    assert "evaluation.json cannot be read" in words(part(report(run), "evaluation"))


def test_report_replaces_the_one_before_and_leaves_nothing_else(run):
    before = tree(run)
    (run / "report.html").write_text("old")
    write_report(run, device=CPU)
    assert (run / "report.html").read_text() != "old"
    assert tree(run) == before


def test_report_that_fails_leaves_the_one_before(run):
    (run / "report.html").write_text("old")
    with (
        mock.patch("pipelines.report.page.page", side_effect=OSError("disk full")),
        pytest.raises(OSError, match="disk full"),
    ):
        write_report(run, device=CPU)
    assert (run / "report.html").read_text() == "old"


def test_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="a run directory is required"):
        write_report(tmp_path)


def test_report_that_fails_does_not_lose_a_finished_run(rgb_file, tmp_path, capsys):
    run = tmp_path / "runs" / "run"
    with mock.patch("pipelines.report.page.page", side_effect=RuntimeError("it failed")):
        command("train_all", *TINY, "--data.source", f"npz:{rgb_file}", "--out", run)
    said = capsys.readouterr().out
    assert "report: not written (it failed); the run is finished without it\n" in said
    assert run.with_name("latest").resolve() == run
    assert not (run / "report.html").exists()


def test_finished_run_is_the_latest_before_its_report_is_begun(rgb_file, tmp_path):
    run = tmp_path / "runs" / "run"
    with (
        mock.patch("pipelines.report.page.page", side_effect=KilledError),
        pytest.raises(KilledError),
    ):
        command("train_all", *TINY, "--data.source", f"npz:{rgb_file}", "--out", run)
    assert run.with_name("latest").resolve() == run
