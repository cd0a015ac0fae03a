"""`python -m pipelines.sample`: the images that were asked for, where they were asked for."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import TINY, command, pixels, python, status, tree

from pipelines.data.config import DataConfig
from pipelines.data.load import load_splits
from pipelines.data.npz import read_npz
from pipelines.evaluation.sections.memorisation import describe_memorisation
from pipelines.files.images import image_grid
from pipelines.generation.labels import parse_label
from pipelines.generation.pipeline import GenerationPipeline
from stage2_prior.sampling.settings import SamplingSettings


@pytest.fixture(scope="module")
def run(tmp_path_factory, photos):
    """A run whose classes are called `cat` and `dog`."""
    run = tmp_path_factory.mktemp("trained") / "runs" / "photos"
    command("train_all", *TINY, "--data.source", f"folder:{photos}", "--out", run)
    return run


@pytest.fixture(scope="module")
def pipeline(run):
    return GenerationPipeline.from_pretrained(run)


def sample(run, *options):
    command("sample", "--run", run, "--device", "cpu", *options)


@pytest.mark.parametrize(
    ("text", "names", "label"),
    [
        (None, ("cat", "dog"), None),
        ("dog", ("cat", "dog"), 1),
        ("DOG", ("cat", "Dog"), 1),
        ("1", ("cat", "dog"), 1),
        ("7", (), 7),
        ("10", ("1", "10", "2"), 1),  # sorted as text, as the folders of a data set are
        ("T-shirt/top", ("Trouser", "T-shirt/top"), 1),
        ("a", ("A", "a", "b"), 1),
        ("A", ("A", "a", "b"), 0),
        ("b", ("A", "a", "B"), 2),
        ("caf\u00e9", ("bar", "cafe\u0301"), 1),
        ("CAFE\u0301", ("bar", "caf\u00e9"), 1),
    ],
)
def test_label_is_a_class_by_name_or_number(text, names, label):
    assert parse_label(text, names) == label


@pytest.mark.parametrize(
    ("text", "names", "known"),
    [
        ("cow", ("cat", "dog"), "cat, dog"),
        ("-1", ("cat", "dog"), "cat, dog"),
        ("2", ("cat", "dog"), "cat, dog"),
        ("9" * 30, (), "no names are known, use a number"),
        ("cow", (), "no names are known, use a number"),
    ],
)
def test_unknown_label_is_refused_with_the_known_ones(text, names, known):
    message = rf"label must be a class name or number \({known}\), got {text}"
    with pytest.raises(ValueError, match=message):
        parse_label(text, names)


def test_label_that_two_classes_may_mean_is_refused_with_both():
    with pytest.raises(ValueError, match=r"one class, but CAT may mean Cat, cat: write it"):
        parse_label("CAT", ("Cat", "cat", "dog"))


def test_unknown_label_among_many_is_answered_with_the_nearest_and_few_others():
    names = tuple(f"category number {i}" for i in range(1500))
    with pytest.raises(ValueError, match=r"got Categry number 777: did you mean .* 777\?") as error:
        parse_label("Categry number 777", names)
    assert "and 1,490 more" in str(error.value)
    assert len(str(error.value)) < 500


def test_label_with_a_line_break_is_refused_on_one_line():
    with pytest.raises(
        ValueError, match=r"\(two\\nlines\), got two\\nline: did you .* two\\nlines"
    ):
        parse_label("two\nline", ("two\nlines",))


def test_grid_shows_the_images_of_the_pipeline(run, pipeline, tmp_path, capsys):
    out = tmp_path / "new" / "grid.png"
    sample(run, "--n", "5", "--seed", "3", "--out", out)
    settings, wrote = capsys.readouterr().out.splitlines()
    assert settings == "sampling with temperature 1, guidance scale 1"
    assert wrote == f"wrote a grid of 5 images to {out}"
    np.testing.assert_array_equal(pixels(out), image_grid(pipeline(5, seed=3).numpy(), columns=3))


def test_array_holds_the_images_and_their_labels(run, pipeline, tmp_path):
    sample(run, "--n", "5", "--out", tmp_path / "a.npz")
    read = read_npz(tmp_path / "a.npz").train
    np.testing.assert_array_equal(read.images, pipeline(5).numpy())
    assert read.labels.tolist() == [0, 1, 0, 1, 0]


def test_directory_holds_single_files_named_by_label(run, pipeline, tmp_path):
    sample(run, "--n", "3", "--out", tmp_path / "files")
    images = pipeline(3).numpy()
    names = ["00000-0.png", "00001-1.png", "00002-0.png"]
    assert tree(tmp_path / "files") == names
    for name, image in zip(names, images, strict=True):
        np.testing.assert_array_equal(pixels(tmp_path / "files" / name), image)


def test_all_settings_reach_the_prior(run, pipeline, tmp_path):
    options = ("--temperature", "0.7", "--first-temperature", "1.3", "--top-k", "5")
    options += ("--top-p", "0.9", "--guidance-scale", "2", "--guidance-schedule", "cosine")
    options += ("--guidance-power", "3", "--first-guidance-scale", "0.5")
    sample(run, "--n", "6", "--label", "dog", *options, "--out", tmp_path / "a.npz")
    settings = SamplingSettings(
        temperature=0.7,
        first_temperature=1.3,
        top_k=5,
        top_p=0.9,
        guidance_scale=2,
        guidance_schedule="cosine",
        first_guidance_scale=0.5,
        guidance_power=3,
    )
    expected = pipeline(6, 1, settings=settings)
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz").train.images, expected.numpy())


@pytest.mark.parametrize("label", ["cat", "0"])
def test_label_by_name_and_number_gives_the_same_class(run, pipeline, tmp_path, label):
    sample(run, "--n", "4", "--label", label, "--out", tmp_path / "a.npz")
    read = read_npz(tmp_path / "a.npz").train
    np.testing.assert_array_equal(read.images, pipeline(4, torch.zeros(4).long()).numpy())
    assert read.labels.tolist() == [0, 0, 0, 0]


def test_batch_size_reaches_the_pipeline_and_changes_no_image(run, pipeline, tmp_path, monkeypatch):
    counts, draw = [], GenerationPipeline.__call__

    def counting(self, n, *arguments, **options):
        counts.append((n, options["batch_size"]))
        return draw(self, n, *arguments, **options)

    monkeypatch.setattr(GenerationPipeline, "__call__", counting)
    sample(run, "--n", "5", "--batch-size", "2", "--out", tmp_path / "a.npz")
    assert counts == [(5, 2)]
    # Up to one of 255 levels: see test_generation.py.
    images = read_npz(tmp_path / "a.npz").train.images.astype(int)
    np.testing.assert_allclose(images, draw(pipeline, 5).numpy(), rtol=0, atol=1)


def test_default_outputs_are_numbered_and_never_overwritten(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    for seed in (0, 1):
        sample(tmp_path / "run", "--n", "2", "--seed", seed)
    first, second = sorted((tmp_path / "run" / "samples").iterdir())
    assert (first.name, second.name) == ("0001.png", "0002.png")
    assert first.read_bytes() != second.read_bytes()


def test_default_run_is_the_latest(run, tmp_path, monkeypatch, capsys):
    shutil.copytree(run.parent, tmp_path / "runs", symlinks=True)
    monkeypatch.chdir(tmp_path)
    command("sample", "--n", "2", "--device", "cpu")
    run_path = Path("runs") / run.name
    _, wrote = capsys.readouterr().out.splitlines()
    assert wrote == f"wrote a grid of 2 images to {run_path}/samples/0001.png"
    assert (tmp_path / "runs" / "photos" / "samples" / "0001.png").exists()


def test_saved_pipeline_is_sampled_as_its_run_is(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "saved")
    sample(tmp_path / "saved", "--n", "3", "--label", "dog", "--out", tmp_path / "a.npz")
    expected = pipeline(3, 1).numpy()
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz").train.images, expected)


def distances(images, training):
    """To the nearest training image, as the root mean square over pixels."""
    difference = images[:, None].astype(float) - training[None]
    return np.sqrt((difference**2).mean(axis=(2, 3, 4))).min(axis=1)


def described(name, found):
    return f"{name} {np.median(found):.1f} and {np.quantile(found, 0.01):.1f}"


def test_distance_to_the_training_images_is_said_on_request(
    run, pipeline, photos, tmp_path, capsys
):
    sample(run, "--n", "20", "--nearest", "--out", tmp_path / "a.png")
    _, wrote, summary, verdict = capsys.readouterr().out.splitlines()
    assert wrote == f"wrote a grid of 20 images to {tmp_path}/a.png"
    splits = load_splits(DataConfig(source=f"folder:{photos}"))
    test = splits.test.images
    again = pipeline.vqvae.decode(pipeline.vqvae.encode(torch.from_numpy(test))).numpy()
    sampled, new, decoded = (
        distances(images, splits.train.images) for images in (pipeline(20).numpy(), test, again)
    )
    parts = [described("samples", sampled), described("test images", new)]
    assert summary == (
        "distance to the nearest training image in gray levels, median and 1st percentile: "
        + "; ".join([*parts, described("their reconstructions", decoded)])
    )
    threshold = min(np.quantile(new, 0.01), np.quantile(decoded, 0.01))
    nearer = (sampled < threshold).sum()
    assert verdict.startswith(
        f"{nearer} of 20 samples are nearer than 99 % of {len(test)} test images and of their "
        f"reconstructions ({threshold:.1f}): "
    )


def test_copies_of_training_images_are_called_so(pipeline, photos):
    splits = load_splits(DataConfig(source=f"folder:{photos}"))
    copies = torch.from_numpy(splits.train.images[:20])
    summary, verdict = describe_memorisation(copies, pipeline.vqvae, splits).splitlines()
    assert "samples 0.0 and 0.0; test images" in summary
    assert verdict.startswith("20 of 20 samples are nearer than 99 % of ")
    assert verdict.endswith(": more than chance allows: look for copies")


def test_distances_of_what_is_no_run_are_refused(pipeline, tmp_path, capsys):
    pipeline.save_pretrained(tmp_path / "saved")
    before = tree(tmp_path)
    assert status("sample", "--run", tmp_path / "saved", "--nearest", "--device", "cpu") == 1
    assert capsys.readouterr().err == (
        f"error: --nearest needs the images that the run was trained on, but {tmp_path}/saved has "
        "no config.json that names them: name a run, or leave --nearest out\n"
    )
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--label", "cow"), "label must be a class name or number (cat, dog), got cow"),
        (("--label", "2"), "number (cat, dog), got 2"),
        (("--n", "0"), "n must be at least 1, got 0"),
        (("--batch-size", "0"), "batch_size must be at least 1, got 0"),
        (("--seed", "-1"), "seed must be in [0, 2^63), got -1"),
        (("--temperature", "-1"), "temperature must be at least 0, got -1.0"),
        (("--top-k", "0"), "top_k must be at least 1, got 0"),
        (("--top-p", "1.5"), "top_p must be in (0, 1], got 1.5"),
        (("--device", "tpu"), "device must be auto, cpu, cuda, cuda:N or mps, got 'tpu'"),
        (("--out", "images.jpg"), "must end in .png or .npz or have no ending, got images.jpg"),
    ],
)
def test_bad_option_is_one_sentence_and_writes_nothing(
    run, options, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    before = tree(run)
    device = () if "--device" in options else ("--device", "cpu")
    assert status("sample", "--run", run, *device, *options) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert (tree(run), list(tmp_path.iterdir())) == (before, [])


def test_existing_output_is_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "mine.png").write_text("mine")
    assert status("sample", "--run", tmp_path / "gone", "--out", tmp_path / "mine.png") == 1
    assert f"{tmp_path}/mine.png exists: choose another one" in capsys.readouterr().err
    assert (tmp_path / "mine.png").read_text() == "mine"


IMPORTS = """
import sys
from pipelines import sample
sample.main()
print(*sys.modules)
"""


@pytest.fixture(scope="module")
def imported(run, tmp_path_factory):
    """The names of all modules that a process has imported after sampling."""
    out = tmp_path_factory.mktemp("samples") / "a.png"
    ended = python("-c", IMPORTS, "--run", run, "--n", "2", "--out", out, "--device", "cpu")
    _, said, modules = ended.stdout.splitlines()
    assert said == f"wrote a grid of 2 images to {out}"
    return modules.split()


def test_sampling_does_not_import_what_is_slow_and_not_needed(imported):
    slow = ["torchvision", "matplotlib", "tensorboard", "torchmetrics", "scipy", "pandas"]
    assert [name for name in slow if name in imported] == []


def test_sampling_does_not_import_the_training(imported):
    assert "pipelines.generation.pipeline" in imported
    training = ("pipelines.training.trainer", "pipelines.training.progress", "pipelines.runs.tasks")
    assert set(training).isdisjoint(imported)
