"""Sweeps end to end on tiny data: every run an ordinary one, and a table that is true."""

import csv
import re
import shutil
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from slow_similarity import slow_ssim
from tiny_runs import (
    TINY,
    KilledError,
    command,
    contents,
    kill_at,
    python,
    status,
    tree,
)

from pipelines.data.load import load_splits
from pipelines.runs.codes import dump_codes
from pipelines.runs.directory import RunDirectory
from pipelines.runs.stage_one import train_vqvae
from pipelines.runs.stage_two import train_prior
from pipelines.runs.tasks import PriorTask, VQVAETask
from pipelines.sweeps import measurement as sweep_measurement
from pipelines.sweeps import options as sweep_options
from pipelines.sweeps import run_all
from pipelines.sweeps.directory import SweepDirectory
from pipelines.sweeps.quantizers import recommended_quantizer
from pipelines.training.metrics_log import MetricsLog, read_metrics
from pipelines.training.precision import Precision
from stage1_vqvae.model import VQVAE
from stage2_prior.pretrained import load_prior

pytestmark = pytest.mark.slow

KINDS, SIZES = ("ema", "residual"), (4, 16)
NAMES = ["ema-4", "ema-16", "residual-4", "residual-16"]

_QUANTIZER = TINY.index("--vqvae.quantizer.codebook-size")
TINY_SWEEP = TINY[:_QUANTIZER] + TINY[_QUANTIZER + 4 :]
TIMINGS = ("vqvae_seconds", "images_per_second", "prior_seconds")
_STEPS = 10  # of each stage of a run: 1.5 epochs of 51 images in batches of 8


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """60 labelled gray images of 12x13: large enough for structural similarity."""
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = generator.integers(40, 120, (60, 1, 1)) + generator.integers(0, 40, (60, 12, 13))
    images[:, :6] += 80 * labels[:, None, None]
    path = tmp_path_factory.mktemp("data") / "gray.npz"
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return f"npz:{path}"


def options(source, out, *others, kinds=KINDS, sizes=SIZES):
    lists = ("--quantizers", *kinds, "--codebook-sizes", *sizes)
    return (*TINY_SWEEP, *lists, "--data.source", source, "--out", out, *others)


@pytest.fixture(scope="module")
def swept(tmp_path_factory, source):
    """A sweep of two kinds and two sizes; copy it before changing anything."""
    out = tmp_path_factory.mktemp("swept") / "sweep"
    command("sweep", *options(source, out))
    return out


@pytest.fixture(scope="module")
def with_prior(tmp_path_factory, source):
    """The same with priors."""
    out = tmp_path_factory.mktemp("swept") / "with-prior"
    command("sweep", *options(source, out, "--with-prior"))
    return out


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory, source):
    """A sweep of two kinds with priors, to be interrupted in many places."""
    out = tmp_path_factory.mktemp("swept") / "two-runs"
    command("sweep", *options(source, out, "--with-prior", sizes=[16]))
    return out


@pytest.fixture
def copy(tmp_path, swept):
    shutil.copytree(swept, tmp_path / "copy")
    return tmp_path / "copy"


def table(out):
    """The rows of the CSV file by run."""
    with (out / "sweep.csv").open(newline="") as file:
        return {f"{row['kind']}-{row['codebook_size']}": row for row in csv.DictReader(file)}


def without_timings(out):
    return [
        {name: cell for name, cell in row.items() if name not in TIMINGS}
        for row in table(out).values()
    ]


def runs_of(out):
    """What the runs hold, without timings: by bytes, and the metrics by row."""
    begun = [name for name in NAMES if (out / name / "metrics.jsonl").exists()]
    held = {name: contents(out / name) for name in begun}
    for files, _ in held.values():
        files.pop("sweep_row.json", None)
    return held


def test_sweep_holds_a_run_directory_for_every_combination_and_its_table(swept, with_prior):
    own = ["sweep.csv", "sweep.json", "sweep.md", "sweep.png"]
    assert sorted(path.name for path in swept.iterdir()) == sorted([*NAMES, *own])
    parts = ["checkpoints", "config.json", "metrics.jsonl", "reconstructions.png", "vqvae"]
    for out, others in ((swept, []), (with_prior, ["codes", "prior"])):
        for name in NAMES:
            expected = sorted([*parts, *others, "sweep_row.json"])
            assert sorted(path.name for path in (out / name).iterdir()) == expected


def test_runs_differ_in_their_quantizer_alone(swept):
    configs = [RunDirectory(swept / name).config() for name in NAMES]
    quantizers = [config.vqvae.quantizer for config in configs]
    assert quantizers == [recommended_quantizer(kind, size) for kind in KINDS for size in SIZES]
    same = [replace(c, vqvae=replace(c.vqvae, quantizer=quantizers[0])) for c in configs]
    assert same == [same[0]] * 4
    assert (same[0].vqvae.width, same[0].vqvae_training.epochs, same[0].seed) == (8, 1.5, 0)


def test_run_of_a_sweep_is_the_ordinary_run_of_its_config(tmp_path, monkeypatch, with_prior):
    monkeypatch.setattr(MetricsLog, "_writer", lambda _log, _phase: None)  # as `command` does
    # The last of the four: nothing of the runs before it may show.
    config = RunDirectory(with_prior / NAMES[-1]).config()
    run, device = RunDirectory(tmp_path / "run"), torch.device("cpu")
    splits = load_splits(config.data)
    model = train_vqvae(config, run, splits, device, resume=False)
    train_prior(
        config,
        run,
        dump_codes(run, splits, model, device, config.prior_augmentation),
        device,
        resume=False,
    )
    files, rows = contents(run.path)
    expected_files, expected_rows = runs_of(with_prior)[NAMES[-1]]
    del expected_files["config.json"]
    assert files == expected_files
    assert rows == expected_rows


def test_runs_can_be_reconstructed_and_sampled_from(with_prior, tmp_path):
    run = ("--run", with_prior / NAMES[-1], "--device", "cpu")
    command("reconstruct", *run, "--out", tmp_path / "a.png")
    command("sample", *run, "--n", "2", "--out", tmp_path / "b.png")
    assert tree(tmp_path) == ["a.png", "b.png"]


@pytest.mark.parametrize("name", NAMES)
def test_row_says_what_the_run_says(name, with_prior):
    row, run = table(with_prior)[name], RunDirectory(with_prior / name)
    metrics = {r.phase: r for r in read_metrics(run.metrics) if r.kind == "test"}
    vqvae, prior = metrics["vqvae"].values, metrics["prior"].values
    size = int(name.partition("-")[2])
    # 12x13 images have 3x4 positions.
    sizes = {"ema-4": "4", "ema-16": "16", "residual-4": "2+2", "residual-16": "4+4"}
    expected = {
        "bits_per_position": np.log2(size),
        "bits_per_image": 12 * np.log2(size),
        "bits_per_pixel": 12 * np.log2(size) / (12 * 13),
        "psnr": vqvae["psnr"],
        "usage": vqvae["usage"],
        "perplexity": vqvae["perplexity"],
        "order_0_entropy": vqvae["entropy"],
        "vqvae_seconds": metrics["vqvae"].seconds,
        "images_per_second": 80 / metrics["vqvae"].seconds,
        "parameters": sum(p.numel() for p in VQVAE.from_pretrained(run.vqvae).parameters()),
        "bits_per_code": prior["bits_per_code"],
        "prior_seconds": metrics["prior"].seconds,
    }
    assert {key: float(row[key]) for key in expected} == pytest.approx(expected, rel=1e-12)
    assert row["codebook_sizes"] == sizes[name]
    assert row["failure"] == ""


@pytest.mark.parametrize("name", NAMES)
def test_bits_under_the_prior_count_the_codes_of_all_grids(name, with_prior):
    prior = load_prior(with_prior / name / "prior")
    assert prior.num_codes == 12 * (2 if name.startswith("residual") else 1)
    row = table(with_prior)[name]
    expected = prior.num_codes * float(row["bits_per_code"])
    assert float(row["prior_bits_per_image"]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_similarity_is_that_of_the_saved_model_on_the_test_split(name, swept):
    run = RunDirectory(swept / name)
    images = torch.from_numpy(load_splits(run.config().data).test.images)
    model = VQVAE.from_pretrained(run.vqvae)
    expected = slow_ssim(images.numpy(), model.decode(model.encode(images)).numpy())
    assert float(table(swept)[name]["ssim"]) == pytest.approx(expected, abs=1e-4)


def test_priors_change_nothing_in_stage_one(swept, with_prior):
    of_prior = ("bits_per_code", "prior_bits_per_image", "on_prior_front")
    rows = [
        [{k: v for k, v in row.items() if k not in of_prior} for row in without_timings(out)]
        for out in (swept, with_prior)
    ]
    assert rows[0] == rows[1]


def test_tables_say_the_same(with_prior):
    lines = (with_prior / "sweep.md").read_text().splitlines()
    heading, _, *rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line[:1] == "|"
    ]
    shown = [dict(zip(heading, row, strict=True)) for row in rows]
    assert [f"{row['quantizer']}-{row['size']}" for row in shown] == NAMES
    for row, exact in zip(shown, table(with_prior).values(), strict=True):
        assert float(row["PSNR, dB"].strip("*")) == pytest.approx(float(exact["psnr"]), abs=0.00501)
        assert float(row["prior bits/image"].replace(",", "")) == pytest.approx(
            float(exact["prior_bits_per_image"]), abs=0.0501
        )
        assert (row["front"] == "*") == (exact["on_front"] == "True")
        assert (row["prior front"] == "*") == (exact["on_prior_front"] == "True")


def test_table_says_what_was_compared_and_how_far_it_carries(swept, source):
    text = (swept / "sweep.md").read_text()
    assert text.startswith(f"{source}, 6 test images; 1.5 epochs of stage one, seed 0.\n\n| quant")
    assert "\n- **bits/image**: " in text


def test_table_is_printed_at_the_end(copy, source, capsys):
    command("sweep", *options(source, copy, "--resume"))
    said = capsys.readouterr().out
    printed = [line for line in said.splitlines() if line.startswith("|")]
    written = (copy / "sweep.md").read_text().splitlines()
    assert printed == [line for line in written if line.startswith("|")]
    assert f"table: {copy}/sweep.md" in said.splitlines()[-1]


MOMENTS = {
    "before the record is written": (SweepDirectory, "begin", 1),
    "before the first run": (RunDirectory, "begin", 1),
    "before the second run": (RunDirectory, "begin", 2),
    "in the second run's stage one": (VQVAETask, "set_progress", _STEPS + 5),
    "before the second run is measured": (run_all, "measure_stage_one", 2),
    "between the second run's stages": (run_all, "dump_codes", 2),
    "in the second run's prior": (PriorTask, "set_progress", _STEPS + 8),
    "before the second run's prior is in its row": (run_all, "measure_prior", 2),
    "before the second run is in the table": (run_all, "document", 2),
    "in the table": (run_all, "to_csv", 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_resume_after_a_kill_equals_uninterrupted(moment, tmp_path, monkeypatch, source, two_runs):
    out = tmp_path / "sweep"
    with monkeypatch.context() as patch:
        kill_at(patch, *MOMENTS[moment])
        with pytest.raises(KilledError):
            command("sweep", *options(source, out, "--with-prior", sizes=[16]))
    command("sweep", *options(source, out, "--with-prior", "--resume", sizes=[16]))
    assert tree(out) == tree(two_runs)
    assert without_timings(out) == without_timings(two_runs)
    assert runs_of(out) == runs_of(two_runs)
    assert (out / "sweep.png").read_bytes() == (two_runs / "sweep.png").read_bytes()


def test_table_of_an_interrupted_sweep_has_the_finished_runs(tmp_path, monkeypatch, source):
    out = tmp_path / "sweep"
    kill_at(monkeypatch, VQVAETask, "set_progress", 2 * _STEPS + 5)
    with pytest.raises(KilledError):
        command("sweep", *options(source, out))
    assert list(table(out)) == NAMES[:2]
    assert (out / "sweep.md").read_text().startswith("2 of 4 runs so far; ")


def test_resume_of_a_finished_sweep_trains_and_measures_nothing(
    copy, monkeypatch, source, swept, capsys
):
    (copy / "sweep.md").unlink()
    kill_at(monkeypatch, VQVAETask, "prepare", 1)
    kill_at(monkeypatch, sweep_measurement, "measure_ssim", 1)
    command("sweep", *options(source, copy, "--resume"))
    assert runs_of(copy) == runs_of(swept)
    for name in ("sweep.md", "sweep.csv", "sweep.png"):
        assert (copy / name).read_bytes() == (swept / name).read_bytes()
    assert f"ema-4: already finished, in {copy}/ema-4" in capsys.readouterr().out


def test_resume_without_a_sweep_begins_one(tmp_path, source, swept):
    command("sweep", *options(source, tmp_path / "sweep", "--resume"))
    assert without_timings(tmp_path / "sweep") == without_timings(swept)


def test_sweep_extended_by_runs_and_priors_equals_the_whole(tmp_path, source, with_prior):
    out = tmp_path / "sweep"
    command("sweep", *options(source, out, kinds=["residual"], sizes=[16]))
    command("sweep", *options(source, out, "--with-prior", "--resume"))
    assert without_timings(out) == without_timings(with_prior)
    assert runs_of(out) == runs_of(with_prior)


def refused(capsys, *arguments):
    """Runs a sweep that must be refused at once, and returns its sentence."""
    capsys.readouterr()
    assert status("sweep", *arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    return printed.err.removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        (("--seed", "3"), "--seed was 0, is now 3"),
        (("--vqvae.width", "9"), "--vqvae.width was 8, is now 9"),
        (("--vqvae-training.epochs", "2"), "--vqvae-training.epochs was 1.5, is now 2.0"),
        (("--codebook-sizes", "4"), "--codebook-sizes was [4, 16], is now [4]"),
        (("--quantizers", "ema"), "--quantizers was ['ema', 'residual'], is now ['ema']"),
    ],
)
def test_changed_options_are_refused_by_name(changed, difference, swept, source, capsys):
    before = tree(swept), (swept / "sweep.json").read_bytes()
    sentence = refused(capsys, *options(source, swept, "--resume", *changed))
    assert sentence == (
        f"to resume {swept} the options must be those it was started with, but {difference}: "
        "repeat the original options or begin another sweep"
    )
    assert (tree(swept), (swept / "sweep.json").read_bytes()) == before


def test_existing_sweep_is_refused_before_the_data_are_looked_for(swept, capsys):
    before = tree(swept)
    sentence = refused(capsys, *options("npz:gone.npz", swept))
    assert sentence.startswith(f"a new sweep needs a new directory, but {swept} holds a sweep: add")
    assert tree(swept) == before


def test_directory_of_something_else_is_refused(tmp_path, source, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    sentence = refused(capsys, *options(source, tmp_path))
    assert sentence.startswith(f"a sweep needs a new or empty directory, but {tmp_path} holds some")
    assert tree(tmp_path) == ["mine.txt"]


def test_changed_run_is_refused(copy, source, capsys):
    shutil.rmtree(copy / "ema-16")
    shutil.copytree(copy / "ema-4", copy / "ema-16")
    sentence = refused(capsys, *options(source, copy, "--resume"))
    assert sentence.startswith(f"to resume {copy}/ema-16 the settings must be those it was started")
    assert "--vqvae.quantizer.codebook-size was 4, is now 16" in sentence


def test_changed_data_are_refused(tmp_path, source, capsys):
    path = tmp_path / "images.npz"
    shutil.copy(source.removeprefix("npz:"), path)
    out = tmp_path / "sweep"
    one = {"kinds": ["ema"], "sizes": [4]}
    command("sweep", *options(f"npz:{path}", out, **one))
    with np.load(path) as arrays:
        changed = {"images": arrays["images"] ^ 1, "labels": arrays["labels"]}
    np.savez(path, **changed)
    before = tree(out)
    assert status("sweep", *options(f"npz:{path}", out, "--resume", **one)) == 1
    assert "but data fingerprint was " in capsys.readouterr().err
    assert tree(out) == before


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (
            {"kinds": ["ema", "lookup_free"], "sizes": [64, 100]},
            "the quantizer lookup_free cannot have 100 codes: codebook_size must be a power of two",
        ),
        ({"sizes": [4, 1]}, "the quantizer ema cannot have 1 codes: codebook_size must be at lea"),
        ({"kinds": ["ema", "vq"]}, "quantizers must be among ema, gradient, "),
        (
            {"kinds": ["ema", "residual", "ema"]},
            "quantizers must differ from each other, got ema more than once: name each once",
        ),
        (
            {"sizes": [4, 16, 8, 8, 4]},
            "codebook-sizes must differ from each other, got 4, 8 more than once: name each once",
        ),
        ({"kinds": []}, "quantizers must name at least one, got none"),
        ({"sizes": []}, "codebook-sizes must name at least one, got none"),
    ],
)
@pytest.mark.parametrize("dry", [False, True])
def test_impossible_lists_are_refused_before_anything_is_done(
    lists, message, dry, tmp_path, capsys
):
    switches = ("--dry-run",) if dry else ()
    sentence = refused(capsys, *options("npz:gone.npz", tmp_path / "sweep", *switches, **lists))
    assert sentence.startswith(message)
    assert tree(tmp_path) == []


@pytest.mark.parametrize(
    "extra",
    [
        ("--vqvae.quantizer.codebook-size", "8"),
        ("--vqvae.quantizer.decay", "0.5"),
        ("--vqvae.quantizer.kind", "gradient"),
    ],
)
def test_options_of_the_quantizer_are_refused(extra, source, tmp_path, capsys):
    assert refused(capsys, *options(source, tmp_path / "sweep", *extra)) == (
        "a sweep takes its quantizers from --quantizers and --codebook-sizes, each with its "
        "recommended settings, but an option of --vqvae.quantizer was given: leave it out"
    )
    assert tree(tmp_path) == []


def test_dry_run_says_the_plan_and_writes_nothing(source, tmp_path, capsys):
    command("sweep", *options(source, tmp_path / "sweep", "--dry-run", "--with-prior"))
    data, classes, *said = capsys.readouterr().out.splitlines()
    assert "training images per class: 0 " in classes
    assert data == f"data:  {source}, 12x13x1, 2 classes: train 51, validation 3, test 6"
    assert [line.partition(": ")[0] for line in said[:4]] == NAMES
    assert said[3].startswith(
        "residual-16: vqvae: residual quantizer, 3x4 codes of 4 + 3x4 codes of 4, "
    )
    assert "; prior: transformer, " in said[3]
    assert said[4] == "{"
    assert tree(tmp_path) == []


@pytest.fixture
def exploding(monkeypatch):
    """Makes the commitment term of the EMA quantizer with 4 codes infinite in float32."""
    real = sweep_options.recommended_quantizer

    def recommended(kind, size):
        config = real(kind, size)
        return replace(config, commitment_weight=1e39) if (kind, size) == ("ema", 4) else config

    monkeypatch.setattr(sweep_options, "recommended_quantizer", recommended)


@pytest.mark.usefixtures("exploding")
def test_failed_run_is_noted_and_the_others_are_kept(tmp_path, source, swept, capsys):
    out = tmp_path / "sweep"
    assert status("sweep", *options(source, out)) == 1
    failure = table(out)["ema-4"]["failure"]
    assert re.fullmatch(r"training vqvae stopped at step 1: the loss is inf; .*", failure)
    printed = capsys.readouterr()
    assert f"ema-4 failed: {failure}\n" in printed.out
    assert printed.err.splitlines()[-1].startswith(
        f"error: 1 of 4 runs failed, first ema-4 ({failure}): "
    )
    assert f"\n- ema with 4 codes failed: {failure}\n" in (out / "sweep.md").read_text()
    assert re.search(r"\| ema +\| 4 +\|.*\| failed \|", (out / "sweep.md").read_text())
    kept, expected = table(out), table(swept)
    for name in NAMES[1:]:
        assert runs_of(out)[name] == runs_of(swept)[name]
        assert kept[name]["psnr"] == expected[name]["psnr"]


def test_failed_run_is_tried_again_and_its_failure_forgotten(tmp_path, monkeypatch, source, swept):
    out = tmp_path / "sweep"
    with monkeypatch.context() as patch:
        kill_at(patch, VQVAE, "save_pretrained", 2, OSError("no space left on the device"))
        assert status("sweep", *options(source, out)) == 1
    assert table(out)["ema-16"]["failure"] == "no space left on the device"
    command("sweep", *options(source, out, "--resume"))
    assert without_timings(out) == without_timings(swept)
    assert runs_of(out) == runs_of(swept)


def test_run_whose_prior_fails_keeps_its_stage_one(tmp_path, monkeypatch, source, with_prior):
    out = tmp_path / "sweep"
    with monkeypatch.context() as patch:
        kill_at(patch, PriorTask, "set_progress", _STEPS + 5, RuntimeError("the loss\n  is nan"))
        assert status("sweep", *options(source, out, "--with-prior")) == 1
    row, expected = table(out)["ema-16"], table(with_prior)["ema-16"]
    assert row["failure"] == "the loss is nan"
    assert (row["psnr"], row["ssim"]) == (expected["psnr"], expected["ssim"])
    assert (row["bits_per_code"], row["on_prior_front"]) == ("", "False")
    assert table(out)["residual-16"]["bits_per_code"] != ""
    command("sweep", *options(source, out, "--with-prior", "--resume"))
    assert without_timings(out) == without_timings(with_prior)


@pytest.mark.usefixtures("exploding")
def test_failure_shows_its_traceback_where_that_is_asked_for(tmp_path, monkeypatch, source, capsys):
    monkeypatch.setenv("TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="1 of 1 runs failed, first ema-4"):
        command("sweep", *options(source, tmp_path / "sweep", kinds=["ema"], sizes=[4]))
    assert "Traceback (most recent call last):" in capsys.readouterr().out


def test_bug_is_not_noted_as_a_failure(tmp_path, monkeypatch, source):
    kill_at(monkeypatch, VQVAETask, "set_progress", 1, KeyError("a bug"))
    with pytest.raises(KeyError, match="a bug"):
        command("sweep", *options(source, tmp_path / "sweep"))


def test_damaged_row_is_refused(copy, source, capsys):
    (copy / "ema-4" / "sweep_row.json").write_text("{")
    assert status("sweep", *options(source, copy, "--resume")) == 1
    assert f"{copy}/ema-4/sweep_row.json cannot be read" in capsys.readouterr().err


AUTO = ("--vqvae-training.precision", "auto", "--prior-training.precision", "bf16")


def test_auto_precision_is_found_once_and_kept(tmp_path, monkeypatch, source):
    found = iter(["bf16", "fp32", "fp32", "fp32"])  # a machine that cannot make up its mind
    monkeypatch.setattr(
        "pipelines.sweeps.run_all.resolve_precision",
        lambda _choice, _device: Precision(name=next(found), reason="so"),
    )
    out, one = tmp_path / "sweep", {"kinds": ["ema"]}
    command("sweep", *options(source, out, *AUTO, **one, sizes=[4]))
    command("sweep", *options(source, out, *AUTO, "--resume", **one, sizes=[4, 8]))
    for name in ("ema-4", "ema-8"):
        config = RunDirectory(out / name).config()
        stages = (config.vqvae_training.precision, config.prior_training.precision)
        assert stages == ("bf16", "bf16")


def test_precision_option_is_that_of_both_stages(monkeypatch):
    taken = []
    monkeypatch.setattr(run_all, "sweep", taken.append)
    command("sweep", *TINY_SWEEP, "--precision", "bf16")
    (options,) = taken
    run = options.sweep.run
    assert run.vqvae_training.precision == run.prior_training.precision == "bf16"
    expected = asdict(run)
    for stage in ("vqvae_training", "prior_training"):
        expected[stage]["precision"] = "fp32"
    command("sweep", *TINY_SWEEP)
    assert asdict(taken[1].sweep.run) == expected


def test_sweep_goes_to_a_directory_of_its_recipe_and_leaves_latest_alone(
    tmp_path, monkeypatch, source
):
    monkeypatch.chdir(tmp_path)
    lists = ("--quantizers", "ema", "--codebook-sizes", "4")
    command("sweep", *TINY_SWEEP, *lists, "--data.source", source)
    assert [str(path) for path in (tmp_path / "runs").iterdir()] == [
        str(tmp_path / "runs" / "sweep-smoke")
    ]
    assert (tmp_path / "runs" / "sweep-smoke" / "ema-4" / "vqvae").is_dir()


TWO_PROCESSES = """
import sys
from tiny_runs import command
from pipelines.cli.command import run_command
run_command(lambda: command("sweep", *sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo's store is another there")
def test_two_processes_write_the_files_of_one_and_say_each_line_once(tmp_path, source, with_prior):
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    out = tmp_path / "sweep"
    ended = python(*launcher, script, *options(source, out, "--with-prior", kinds=["ema"]))
    assert ended.returncode == 0, ended.stderr
    assert [path for path in tree(with_prior) if not path.startswith("residual")] == tree(out)
    said = ended.stdout.splitlines()
    assert [line for line in said if ": run " in line] == [
        "ema-4: run 1 of 2",
        "ema-16: run 2 of 2",
    ]
    assert sum(line.startswith("table: ") for line in said) == 1
    assert list(table(out)) == ["ema-4", "ema-16"]
