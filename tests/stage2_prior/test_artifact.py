"""Saving and loading a prior: bit-exact, and everything that is not whole is refused."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_priors import CONFIGS, KINDS, SHAPES, as_grids, make_prior, random_labels, random_sequence

from stage2_prior import CodePrior, GridSpec, build_prior
from stage2_prior.artifact import save_artifact, weights_hash

GRIDS = (GridSpec(2, 3, 5), GridSpec(2, 3, 4))


@pytest.fixture(params=KINDS)
def saved(request, tmp_path):
    """A directory with a saved prior of either kind."""
    make_prior(request.param, GRIDS, 3).save_pretrained(tmp_path / "prior")
    return tmp_path / "prior"


def edit_config(directory, edit):
    config = json.loads((directory / "config.json").read_text())
    edit(config)
    (directory / "config.json").write_text(json.dumps(config))


def edit_weights(directory, edit):
    """Edits the weights by hand, and gives the config their hash."""
    state = load_file(directory / "model.safetensors")
    edit(state)
    save_file(state, directory / "model.safetensors")
    edit_config(directory, lambda config: config.update(weights_sha256=weights_hash(state)))


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize(("kind", "grids"), SHAPES)
def test_loaded_prior_is_the_saved_one_bit_for_bit(tmp_path, kind, grids, num_classes):
    prior = make_prior(kind, grids, num_classes).train()
    prior.save_pretrained(tmp_path / "prior")
    loaded = CodePrior.from_pretrained(tmp_path / "prior")
    assert type(loaded) is type(prior)
    assert (loaded.config, loaded.grids, loaded.num_classes) == (prior.config, grids, num_classes)
    assert not loaded.training
    expected = prior.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[k]) for k, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_prior_gives_the_same_log_prob_and_samples(tmp_path, kind):
    prior = make_prior(kind, GRIDS, 3)
    prior.save_pretrained(tmp_path / "prior")
    loaded = CodePrior.from_pretrained(tmp_path / "prior")
    codes, labels = as_grids(random_sequence(GRIDS, 4), GRIDS), random_labels(3, 4)
    assert torch.equal(loaded.log_prob(codes, labels), prior.log_prob(codes, labels))
    pairs = zip(loaded.sample(4, labels, seed=1), prior.sample(4, labels, seed=1), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_prior_knows_its_views(tmp_path, kind):
    prior = build_prior(CONFIGS[kind], GRIDS, 3, num_views=5)
    prior.save_pretrained(tmp_path / "prior")
    loaded = CodePrior.from_pretrained(tmp_path / "prior")
    assert (loaded.num_views, loaded.num_conditions) == (5, 20)


def test_prior_of_an_older_version_has_one_view(saved):
    edit_config(saved, lambda config: config.pop("num_views"))
    assert CodePrior.from_pretrained(saved).num_views == 1


@pytest.mark.parametrize("vqvae_hash", [None, "0" * 64])
def test_hash_of_the_vqvae_is_kept(tmp_path, vqvae_hash):
    build_prior(CONFIGS["pixelcnn"], GRIDS, vqvae_hash=vqvae_hash).save_pretrained(tmp_path / "p")
    assert CodePrior.from_pretrained(tmp_path / "p").vqvae_hash == vqvae_hash


def test_saving_overwrites_nothing(saved):
    before = (saved / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match=r"a new directory is required .* exists: choose"):
        make_prior("pixelcnn", GRIDS).save_pretrained(saved)
    assert (saved / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["", "config.json", "model.safetensors"])
def test_missing_file_is_named(saved, name):
    missing = saved / name
    shutil.rmtree(missing) if missing.is_dir() else missing.unlink()
    message = rf"a saved prior is required .* {re.escape(str(missing))} does not exist: check"
    with pytest.raises(FileNotFoundError, match=message):
        CodePrior.from_pretrained(saved)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_weights_are_refused(saved, share):
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"must be a whole safetensors file, but it is damaged"):
        CodePrior.from_pretrained(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"prior"', "{}", "\ufeff{}"])
def test_damaged_config_is_refused(saved, text):
    (saved / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"must be the JSON config of a saved prior, .* damaged"):
        CodePrior.from_pretrained(saved)


def test_weights_of_another_prior_of_the_same_shape_are_refused(saved, tmp_path):
    other = CodePrior.from_pretrained(saved)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    other.save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", saved)
    with pytest.raises(
        ValueError, match=r"config\.json and model\.safetensors in .* do not belong"
    ):
        CodePrior.from_pretrained(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(saved, value):
    edit_weights(saved, lambda state: state["heads.1.bias"].index_fill_(0, torch.tensor(2), value))
    with pytest.raises(
        ValueError, match=r"weights must be finite, but heads\.1\.bias in .* has NaN"
    ):
        CodePrior.from_pretrained(saved)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda s: s.pop("heads.0.bias"),
            r"heads\.0\.bias must have shape \(5,\), got none \(miss",
        ),
        (
            lambda s: s.update(extra=torch.zeros(2)),
            r"extra must have shape none \(no such tensor\), got \(2,\)",
        ),
        (
            lambda s: s.update({"heads.0.bias": torch.zeros(6)}),
            r"heads\.0\.bias must have shape \(5,\), got \(6,\): restore the pair",
        ),
    ],
)
def test_weights_that_do_not_fit_the_config_are_refused(saved, edit, message):
    edit_weights(saved, edit)
    with pytest.raises(ValueError, match=r"weights in .* do not fit its config: " + message):
        CodePrior.from_pretrained(saved)


def test_config_that_does_not_fit_the_weights_is_refused(saved):
    edit_config(saved, lambda config: config["model"].update(num_layers=1))
    with pytest.raises(ValueError, match=r"weights in .* do not fit its config: "):
        CodePrior.from_pretrained(saved)


def test_another_kind_of_artifact_is_refused(tmp_path):
    save_artifact(tmp_path / "vqvae", "vqvae", {}, torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"must hold a prior, but it holds a vqvae: name another"):
        CodePrior.from_pretrained(tmp_path / "vqvae")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(format_version=2), "has format version 2, but this version of the"),
        (lambda c: c.update(colour=1), "['colour'] are missing or unknown: save it again"),
        (lambda c: c.pop("grids"), "['grids'] are missing or unknown: save it again"),
        (lambda c: c.update(grids=[]), "at least one grid is required, got none"),
        (lambda c: c["grids"][0].pop("width"), "grids must be a list of {height, width, codebook"),
        (lambda c: c["grids"][0].update(height=0), "must be at least 1, got GridSpec(height=0"),
        (lambda c: c.update(grids=None), "grids must be a list of {height, width, codebook_size}"),
        (lambda c: c.update(num_classes=0), "num_classes must be at least 1 or None, got 0"),
        (lambda c: c.update(num_classes="3"), "num_classes must be at least 1 or None, got '3'"),
        (lambda c: c.update(model=None), "kind must be one of transformer, pixelcnn, got None"),
        (lambda c: c["model"].update(kind="rnn"), "kind must be one of transformer, pixelcnn, got"),
        (lambda c: c["model"].update(colour=1), "['colour'] are missing or unknown: the config is"),
        (lambda c: c["model"].pop("width"), "['width'] are missing or unknown: the config is of"),
        (lambda c: c["model"].update(width=0), "width must be "),
    ],
)
def test_config_of_another_form_is_refused_in_one_sentence(saved, edit, message):
    edit_config(saved, edit)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        CodePrior.from_pretrained(saved)
    assert "\n" not in str(error.value)
    assert "__init__" not in str(error.value)


def test_prior_without_grids_is_refused():
    with pytest.raises(ValueError, match="at least one grid is required, got none"):
        build_prior(CONFIGS["transformer"], ())


@pytest.mark.parametrize("num_classes", [0, -1])
def test_prior_with_less_than_one_class_is_refused(num_classes):
    with pytest.raises(ValueError, match=f"must be at least 1 or None, got {num_classes}"):
        build_prior(CONFIGS["transformer"], GRIDS, num_classes)


def test_pixelcnn_refuses_grids_of_several_shapes():
    grids = (GridSpec(2, 2, 3), GridSpec(4, 4, 3))
    with pytest.raises(
        ValueError, match=r"needs grids of one shape, got \[\(2, 2\), \(4, 4\)\]: use"
    ):
        build_prior(CONFIGS["pixelcnn"], grids)
