"""Both stages end to end on tiny data: what a run leaves, and that it is true."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_runs import TINY, command, contents, status, tree

from pipelines.data.config import DataConfig
from pipelines.data.data_record import SplitSizes
from pipelines.data.load import load_splits
from pipelines.files.images import image_grid
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.runs.directory import RunDirectory
from pipelines.training.metrics_log import read_metrics
from stage1_vqvae.code_dump import read_code_dump
from stage1_vqvae.model import VQVAE
from stage2_prior.pretrained import load_prior


def run_of(tmp_path_factory, source, *options):
    run = tmp_path_factory.mktemp("trained") / "run"
    command("train_all", *TINY, "--data.source", source, "--out", run, *options)
    return run


@pytest.fixture(scope="session")
def gray_run(tmp_path_factory, gray_file):
    """Odd sizes, no labels, and the other kind of both stages."""
    kinds = ("--prior.kind", "pixelcnn", "--vqvae.quantizer.kind", "gradient")
    return run_of(tmp_path_factory, f"npz:{gray_file}", *kinds, "--prior.kernel-size", "3")


@pytest.fixture(scope="session")
def photos_run(tmp_path_factory, photos):
    """A folder with classes, larger squares, another likelihood and a cosine codebook."""
    options = ("--vqvae.downsampling", "8", "--vqvae.likelihood", "l1", "--vqvae.quantizer.cosine")
    return run_of(tmp_path_factory, f"folder:{photos}", *options)


@pytest.fixture(params=["rgb_run", "gray_run", "photos_run"])
def run(request):
    return RunDirectory(request.getfixturevalue(request.param))


@pytest.fixture
def splits(run):
    return load_splits(run.config().data)


def test_run_directory_holds_what_the_design_says(run):
    top = [path.name for path in run.path.iterdir()]
    assert sorted(top) == [
        "checkpoints",
        "codes",
        "config.json",
        "metrics.jsonl",
        "prior",
        "reconstructions.png",
        "report.html",
        "samples.png",
        "vqvae",
    ]
    assert tree(run.vqvae) == tree(run.prior) == ["config.json", "model.safetensors"]
    parts = ["test.safetensors", "train.safetensors", "validation.safetensors"]
    assert tree(run.codes) == ["config.json", *parts]
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["prior", "vqvae"]


def test_config_holds_the_options_and_the_data(rgb_run, rgb_file):
    run = RunDirectory(rgb_run)
    config, data = run.config(), run.data()
    assert (config.recipe, config.device) == ("smoke", "cpu")
    assert config.data.source == f"npz:{rgb_file}"
    assert (config.vqvae.width, config.vqvae.quantizer.codebook_size) == (8, 8)
    assert data.image_shape == (3, 8, 10)
    assert data.num_images == SplitSizes(train=51, validation=3, test=6)
    assert (data.num_classes, data.class_names) == (2, ("0", "1"))


def test_both_kinds_of_each_stage_were_trained(rgb_run, gray_run):
    kinds = []
    for path in (rgb_run, gray_run):
        run = RunDirectory(path)
        quantizer = VQVAE.from_pretrained(run.vqvae).config.quantizer.kind
        kinds.append((quantizer, load_prior(run.prior).config.kind))
    assert kinds == [("ema", "transformer"), ("gradient", "pixelcnn")]


def test_models_and_codes_belong_together(run):
    expected = VQVAE.from_pretrained(run.vqvae).weights_hash()
    assert read_code_dump(run.codes).vqvae_hash == expected
    assert load_prior(run.prior).vqvae_hash == expected


def test_codes_are_those_of_every_image_with_its_label(run, splits):
    model, dump = VQVAE.from_pretrained(run.vqvae), read_code_dump(run.codes)
    assert dump.num_classes == splits.num_classes
    for name, images in splits.by_name.items():
        (codes,) = model.encode(torch.from_numpy(images.images))
        assert dump.splits[name].codes[0].equal(codes.int())
        labels = dump.splits[name].labels
        np.testing.assert_array_equal([] if labels is None else labels, _labels(images))


def _labels(images):
    return [] if images.labels is None else images.labels


def metrics_on_test(run, phase):
    (row,) = (r for r in read_metrics(run.metrics) if (r.phase, r.kind) == (phase, "test"))
    return row.values


def test_reported_reconstruction_is_that_of_the_test_images(run, splits):
    images = splits.test.images
    model = VQVAE.from_pretrained(run.vqvae)
    codes = model.encode(torch.from_numpy(images))
    decoded = model.decode(codes).numpy().astype(float)
    counts = np.bincount(codes[0].flatten(), minlength=8)
    p = counts[counts > 0] / counts.sum()
    entropy = -(p * np.log2(p)).sum()
    expected = {
        "psnr": 10 * np.log10(255**2 / np.mean((decoded - images) ** 2)),
        "l1": np.mean(np.abs(decoded - images)),
        "usage": np.mean(counts > 0),
        "perplexity": 2**entropy,
        "entropy": entropy,
    }
    # Float64 sums in another order.
    assert metrics_on_test(run, "vqvae") == pytest.approx(expected, rel=1e-6)


def test_reported_bits_are_those_of_the_test_codes(run):
    split = read_code_dump(run.codes).splits["test"]
    prior = load_prior(run.prior)
    nats = -prior.log_prob((split.codes[0].long(),), split.labels)
    p = np.bincount(split.codes[0].flatten(), minlength=8) / split.codes[0].numel()
    length = split.codes[0][0].numel()
    expected = {
        "bits_per_code": (nats.mean() / length / np.log(2)).item(),
        "order_0_entropy": -sum(x * np.log2(x) for x in p if x > 0),
        "bits_per_image": (nats.mean() / np.log(2)).item(),
    }
    assert metrics_on_test(run, "prior") == pytest.approx(expected, rel=1e-6)


def test_samples_are_those_of_the_pipeline_in_a_grid(run):
    expected = GenerationPipeline.from_pretrained(run.path)(100, seed=run.config().seed)
    with Image.open(run.samples) as image:
        pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    grid = image_grid(expected.numpy(), columns=10)
    np.testing.assert_array_equal(pixels, np.broadcast_to(grid, pixels.shape))


def test_first_reconstruction_stands_below_its_original(rgb_run, rgb_file):
    (original, *_) = load_splits(DataConfig(source=f"npz:{rgb_file}")).test.images
    model = VQVAE.from_pretrained(rgb_run / "vqvae")
    decoded = model.decode(model.encode(torch.from_numpy(original)[None]))[0].numpy()
    with Image.open(rgb_run / "reconstructions.png") as image:
        pixels = np.asarray(image).transpose(2, 0, 1)
    # Two rows of 8x10, enlarged alike, between white lines of 2 pixels.
    scale = (pixels.shape[1] - 3 * 2) // (2 * 8)
    shown = pixels[:, :, 2::scale][:, :, :10]
    np.testing.assert_array_equal(shown[:, 2::scale][:, :8], original)
    np.testing.assert_array_equal(shown[:, 4 + 8 * scale :: scale][:, :8], decoded)


def test_run_in_a_folder_of_runs_is_the_latest(rgb_run):
    assert rgb_run.with_name("latest").resolve() == rgb_run.resolve()


def test_same_seed_gives_the_same_run(tmp_path, rgb_run, rgb_file):
    command("train_all", *TINY, "--data.source", f"npz:{rgb_file}", "--out", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(rgb_run)


def test_another_seed_gives_another_run(tmp_path, rgb_run, rgb_file):
    run, source = tmp_path / "other", f"npz:{rgb_file}"
    command("train_all", *TINY, "--data.source", source, "--out", run, "--seed", "1")
    for model in ("vqvae", "prior"):
        weights = [load_file(path / model / "model.safetensors") for path in (run, rgb_run)]
        assert any(not weights[0][name].equal(weights[1][name]) for name in weights[0])


def test_stages_one_by_one_give_the_run_of_all(tmp_path, rgb_run, rgb_file):
    run = tmp_path / "run"
    command("train_vqvae", *TINY, "--data.source", f"npz:{rgb_file}", "--out", run)
    command("dump_codes", "--run", run, "--device", "cpu")
    command("train_prior", "--run", run, "--device", "cpu")
    files, rows = contents(run)
    expected_files, expected_rows = contents(rgb_run)
    del expected_files["samples.png"]
    assert files == expected_files
    assert rows == expected_rows


@pytest.fixture(scope="module")
def without_prior(tmp_path_factory, rgb_run):
    """A run as `dump_codes` leaves it."""
    run = tmp_path_factory.mktemp("partly") / "runs" / "run"
    shutil.copytree(rgb_run, run)
    shutil.rmtree(run / "prior")
    shutil.rmtree(run / "checkpoints" / "prior")
    return run


def test_train_prior_takes_its_own_settings_and_records_them(tmp_path, without_prior):
    run = tmp_path / "runs" / "run"
    shutil.copytree(without_prior, run)
    options = ("--prior.kind", "pixelcnn", "--prior.kernel-size", "3")
    command("train_prior", "--run", run, "--device", "cpu", *options)
    prior = load_prior(run / "prior")
    # What both kinds have is kept from the run.
    assert (prior.config.kind, prior.config.kernel_size, prior.config.width) == ("pixelcnn", 3, 8)
    config = RunDirectory(run).config()
    assert config.prior == prior.config
    assert (run.with_name("latest")).resolve() == run


def test_steps_of_a_run_say_what_came_and_what_comes_next(tmp_path, without_prior, capsys):
    run = tmp_path / "run"
    shutil.copytree(without_prior, run)
    shutil.rmtree(run / "codes")
    command("dump_codes", "--run", run, "--device", "cpu")
    assert capsys.readouterr().out.splitlines() == [
        "codes: 2x3 of 8 codes an image; images: train 51, validation 3, test 6",
        f"next: python -m pipelines.train_prior --run {run}",
    ]


def test_run_says_its_plan_its_metrics_and_where_to_look(tmp_path, gray_file, capsys):
    run = tmp_path / "run"
    command("train_all", *TINY, "--data.source", f"npz:{gray_file}", "--out", run)
    said = capsys.readouterr().out.splitlines()
    vqvae, prior = (
        metrics_on_test(RunDirectory(run), "vqvae"),
        metrics_on_test(RunDirectory(run), "prior"),
    )
    assert said[0] == f"data:  npz:{gray_file}, 7x9x1, no labels: train 51, validation 3, test 6"
    assert said[1].startswith("vqvae: ema quantizer, 2x3 codes of 8, ")
    assert said[1].endswith("1.5 epochs = 10 steps of 8 images")
    assert said[3].startswith(f"vqvae: psnr {vqvae['psnr']:.4g}, l1 {vqvae['l1']:.4g}, usage ")
    assert said[3].endswith("(fp32), best weights of step 10 of 10")
    assert said[6].startswith(f"prior: bits_per_code {prior['bits_per_code']:.4g}, order_0_entropy")
    for line, phase in ((said[4], "vqvae"), (said[7], "prior")):
        assert line.startswith((f"{phase}: no overfitting: ", f"{phase}: overfits: "))
    assert said[8] == f"report: {run}/report.html"
    assert f"{run}/samples.png" in said[9]
    assert f"{run}/reconstructions.png" in said[9]
    assert said[10:] == [f"next: python -m pipelines.sample --run {run} --n 64"]


def test_images_of_four_channels_are_trained_on_and_shown(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 4), dtype=np.uint8)
    np.savez(tmp_path / "four.npz", images=images)
    run = tmp_path / "run"
    command("train_all", *TINY, "--data.source", f"npz:{tmp_path}/four.npz", "--out", run)
    assert tuple(GenerationPipeline.from_pretrained(run)(2).shape) == (2, 4, 8, 8)
    with Image.open(run / "samples.png") as image:
        # 10 rows and 10 columns of 8x32, between white lines of 2 pixels.
        scale = (image.height - 2 - 10 * 2) // (10 * 8)
        assert (image.mode, image.width) == ("L", 10 * (32 * scale + 2) + 2)


def test_existing_run_is_refused_before_the_data_are_looked_for(rgb_run, capsys):
    before = contents(rgb_run)
    assert status("train_all", *TINY, "--data.source", "npz:gone.npz", "--out", rgb_run) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"error: a new run needs a new directory, but {rgb_run} holds a run: add --resume to go on "
        "with it, or name another with --out\n"
    )
    assert contents(rgb_run) == before


@pytest.mark.parametrize("name", ["train_all", "train_vqvae"])
def test_dry_run_in_an_existing_run_says_the_plan_and_changes_nothing(
    name, rgb_run, rgb_file, capsys
):
    before = tree(rgb_run)
    source = f"npz:{rgb_file}"
    command(name, *TINY, "--data.source", source, "--out", rgb_run, "--dry-run")
    plan, brace, settings = capsys.readouterr().out.partition("\n{")
    assert plan.startswith("data: ")
    assert json.loads(brace + settings) == RunDirectory(rgb_run).config().to_dict()
    assert tree(rgb_run) == before
