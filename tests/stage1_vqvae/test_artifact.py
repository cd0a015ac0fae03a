"""Saving and loading: bit-exact, whole or not at all, and everything else refused."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_vqvae import KINDS, changed, make_model, random_images, state_of

from stage1_vqvae import VQVAE, artifact
from stage1_vqvae.artifact import load_weights, save_artifact, weights_hash


@pytest.fixture
def saved(tmp_path):
    """A directory with a saved model."""
    make_model((1, 8, 8)).save_pretrained(tmp_path / "vqvae")
    return tmp_path / "vqvae"


def edit_config(directory, edit):
    config = json.loads((directory / "config.json").read_text())
    edit(config)
    (directory / "config.json").write_text(json.dumps(config))


def replace_weights(directory, edit):
    """Edits the weights by hand and gives the config their hash."""
    state = load_file(directory / "model.safetensors")
    edit(state)
    save_file(state, directory / "model.safetensors")
    edit_config(directory, lambda config: config.update(weights_sha256=weights_hash(state)))


def test_both_stages_have_the_same_copy_of_the_artifact_module():
    copy = Path(artifact.__file__)
    other = copy.parents[1] / "stage2_prior" / copy.name
    assert copy.read_text(encoding="utf-8") == other.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_loaded_model_has_the_saved_weights_bit_for_bit(tmp_path, kind, memory_format):
    model = make_model((3, 9, 6), kind).to(memory_format=memory_format)
    model.save_pretrained(tmp_path / "vqvae")
    loaded = VQVAE.from_pretrained(tmp_path / "vqvae")
    assert not changed(state_of(model), state_of(loaded))
    assert loaded.weights_hash() == model.weights_hash()


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_model_gives_the_same_codes_and_images(tmp_path, kind):
    model = make_model((3, 9, 6), kind).to(memory_format=torch.channels_last)
    model.save_pretrained(tmp_path / "vqvae")
    loaded = VQVAE.from_pretrained(tmp_path / "vqvae")
    codes = model.encode(random_images(4, 3, 9, 6))
    assert all(map(torch.equal, loaded.encode(random_images(4, 3, 9, 6)), codes))
    assert torch.equal(loaded.decode(codes), model.decode(codes))


def test_loaded_model_has_the_saved_config(tmp_path):
    model = make_model((3, 9, 6), "gradient", downsampling=8, likelihood="l1")
    model.save_pretrained(tmp_path / "vqvae")
    loaded = VQVAE.from_pretrained(tmp_path / "vqvae")
    assert loaded.config == model.config
    assert loaded.image_shape == (3, 9, 6)


def test_loaded_model_is_in_evaluation_mode(saved):
    assert not VQVAE.from_pretrained(saved).training


def test_save_makes_parent_directories_and_leaves_two_files(tmp_path):
    make_model().save_pretrained(tmp_path / "runs" / "a" / "vqvae")
    names = {path.name for path in (tmp_path / "runs" / "a").rglob("*")}
    assert names == {"vqvae", "config.json", "model.safetensors"}


def test_save_overwrites_nothing(saved):
    before = (saved / "model.safetensors").read_bytes()
    with pytest.raises(
        FileExistsError, match=r"a new directory is required .* exists: choose another"
    ):
        make_model().save_pretrained(saved)
    assert (saved / "model.safetensors").read_bytes() == before


def test_interrupted_save_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(path, _content):
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(artifact, "_write", full_disk)
    with pytest.raises(OSError, match="No space left"):
        make_model().save_pretrained(tmp_path / "vqvae")
    assert list(tmp_path.iterdir()) == []


def test_weights_hash_is_the_digest_of_names_types_shapes_and_bytes():
    weights = {"b": torch.tensor([1, -2]), "a": torch.tensor([[0.5], [3.0]])}
    expected = hashlib.sha256(
        b"a torch.float32 (2, 1)\n\x00\x00\x00\x3f\x00\x00\x40\x40"
        b"b torch.int64 (2,)\n" + (1).to_bytes(8, "little") + b"\xfe" + b"\xff" * 7
    )
    assert weights_hash(weights) == expected.hexdigest()


def test_weights_hash_does_not_depend_on_the_memory_format():
    weight = torch.randn(3, 4, 5, 6)
    assert weights_hash({"w": weight}) == weights_hash(
        {"w": weight.to(memory_format=torch.channels_last)}
    )


@pytest.mark.parametrize("name", ["encoder.project.bias", "quantizer.codebook"])
def test_weights_hash_changes_with_a_single_weight(name):
    model = make_model()
    before = model.weights_hash()
    model.state_dict()[name].view(-1)[0] += 1e-6
    assert model.weights_hash() != before


@pytest.mark.parametrize("missing", [".", "config.json", "model.safetensors"])
def test_missing_files_are_refused(saved, missing):
    path = saved / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=r"a saved vqvae is required in .* does not exist"):
        VQVAE.from_pretrained(saved)


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_truncated_weights_are_refused(saved, size):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="must be a whole safetensors file, but it is damaged"):
        VQVAE.from_pretrained(saved)


def test_config_of_other_weights_is_refused(saved, tmp_path):
    make_model().save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "config.json", saved / "config.json")
    with pytest.raises(ValueError, match=r"do not belong together .* restore the pair"):
        VQVAE.from_pretrained(saved)


def test_weights_of_another_shape_are_refused(saved):
    replace_weights(saved, lambda state: state.update({"decoder.project.bias": torch.zeros(9)}))
    message = r"do not fit its config: decoder.project.bias must have shape \(6,\), got \(9,\)"
    with pytest.raises(ValueError, match=message):
        VQVAE.from_pretrained(saved)


def test_a_config_of_another_width_is_refused(saved):
    edit_config(saved, lambda config: config["model"].update(width=5))
    with pytest.raises(ValueError, match=r"do not fit its config: .* must have shape .* got"):
        VQVAE.from_pretrained(saved)


def test_a_missing_weight_is_refused(saved):
    replace_weights(saved, lambda state: state.pop("quantizer.usage_sum"))
    with pytest.raises(
        ValueError, match=r"usage_sum must have shape \(7, 4\), got none \(missing\)"
    ):
        VQVAE.from_pretrained(saved)


def test_a_left_over_weight_is_refused(saved):
    replace_weights(saved, lambda state: state.update(extra=torch.zeros(2)))
    with pytest.raises(
        ValueError, match=r"extra must have shape none \(no such tensor\), got \(2,\)"
    ):
        VQVAE.from_pretrained(saved)


def test_load_weights_changes_nothing_where_they_do_not_fit():
    model = make_model()
    before = state_of(model)
    with pytest.raises(ValueError, match="do not fit"):
        load_weights(model, {**make_model().state_dict(), "extra": torch.zeros(2)}, "somewhere")
    assert not changed(before, state_of(model))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused(saved, value):
    replace_weights(saved, lambda state: state["encoder.project.bias"].fill_(value))
    with pytest.raises(ValueError, match=r"weights must be finite, but encoder\.project\.bias in"):
        VQVAE.from_pretrained(saved)


def test_an_artifact_of_another_kind_is_refused(tmp_path):
    save_artifact(tmp_path / "prior", "prior", {}, torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="must hold a vqvae, but it holds a prior"):
        VQVAE.from_pretrained(tmp_path / "prior")


def test_another_format_version_is_refused(saved):
    edit_config(saved, lambda config: config.update(format_version=2))
    with pytest.raises(ValueError, match=r"has format version 2, but this version .* reads 1"):
        VQVAE.from_pretrained(saved)


@pytest.mark.parametrize("text", ["", '{"kind": "vqvae"', "[1, 2]", "{}", '"vqvae"', "\x00\xff"])
def test_a_damaged_config_is_refused(saved, text):
    (saved / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"must be the JSON config of a saved vqvae, .* damaged"):
        VQVAE.from_pretrained(saved)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(note="x"), r"must have image_shape and model, got \['image_shape'"),
        (lambda c: c.pop("model"), r"must have image_shape and model, got \['image_shape'\]"),
        (lambda c: c["model"].update(depth=3), r"\['depth'\] are missing or unknown"),
        (lambda c: c["model"].pop("width"), r"\['width'\] are missing or unknown"),
        (lambda c: c["model"].update(width="6"), "must describe a VQ-VAE, but"),
        (
            lambda c: c["model"].update(width=0),
            "must describe a VQ-VAE, but width must be at least",
        ),
        (lambda c: c["model"]["quantizer"].update(kind="rvq"), "kind must be one of ema, gradient"),
        (lambda c: c["model"]["quantizer"].update(beta=1), r"\['beta'\] are missing or unknown"),
        (lambda c: c.update(model=[]), "must describe a VQ-VAE, but"),
        (lambda c: c.update(image_shape=[8, 8]), "must describe a VQ-VAE, but"),
        (lambda c: c.update(image_shape=None), "must describe a VQ-VAE, but"),
    ],
)
def test_an_impossible_config_is_refused(saved, edit, message):
    edit_config(saved, edit)
    with pytest.raises(ValueError, match=message):
        VQVAE.from_pretrained(saved)


def test_saved_files_follow_the_umask(tmp_path):
    previous = os.umask(0o022)
    try:
        make_model().save_pretrained(tmp_path / "vqvae")
    finally:
        os.umask(previous)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "vqvae").iterdir()}
    assert modes == {"config.json": 0o644, "model.safetensors": 0o644}
