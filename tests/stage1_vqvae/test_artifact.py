"""Saving and loading: bit-exact, whole or not at all, and everything else refused."""

import hashlib
import json
import os
import shutil
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file
from sealing import NoMemory, edit_record, edit_weights
from tiny_vqvae import CASES, changed, make_model, random_images, state_of

from stage1_vqvae import VQVAE
from stage1_vqvae.artifact import save_artifact, weights_hash


@pytest.fixture
def saved(tmp_path):
    """A directory with a saved model."""
    make_model((1, 8, 8)).save_pretrained(tmp_path / "vqvae")
    return tmp_path / "vqvae"


def edit_config(directory, edit):
    edit_record(directory / "config.json", edit)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_loaded_model_has_the_saved_weights_bit_for_bit(tmp_path, memory_format):
    model = make_model((3, 9, 6)).to(memory_format=memory_format)
    model.save_pretrained(tmp_path / "vqvae")
    loaded = VQVAE.from_pretrained(tmp_path / "vqvae")
    assert not changed(state_of(model), state_of(loaded))
    assert loaded.weights_hash() == model.weights_hash()


@pytest.fixture
def _default_dtype(request):
    """Another default dtype than torch's own, for a test."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("_default_dtype", [torch.float64], indirect=True)
@pytest.mark.usefixtures("_default_dtype")
@pytest.mark.parametrize("name", ["ema-all", "simvq-moments", "residual-finite_scalar"])
def test_loaded_model_is_the_same_under_another_default_dtype(tmp_path, name):
    model = make_model((3, 9, 6), quantizer=CASES[name]).float()
    model = model.to(memory_format=torch.channels_last)
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_pipe_in_place_of_a_file_is_refused(saved, name):
    # To open one waits for a writer, for ever.
    (saved / name).unlink()
    os.mkfifo(saved / name)
    with pytest.raises(FileNotFoundError, match=rf"{name} is of another type"):
        VQVAE.from_pretrained(saved)


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_truncated_weights_are_refused(saved, size):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="must be a whole safetensors file, but it is damaged"):
        VQVAE.from_pretrained(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_change_of_any_byte_is_refused(saved, name):
    path = saved / name
    content = path.read_bytes()
    for position in range(0, len(content), len(content) // 40):
        altered = bytearray(content)
        altered[position] ^= 1 << position % 8
        path.write_bytes(altered)
        with pytest.raises(ValueError, match=r"config\.json|model\.safetensors"):
            VQVAE.from_pretrained(saved)


def test_header_with_other_blanks_or_metadata_is_refused(saved):
    # The tensors are the same, and so is their hash.
    state = load_file(saved / "model.safetensors")
    save_file(state, saved / "model.safetensors", metadata={"format": "np"})
    with pytest.raises(ValueError, match=r"do not belong together .* restore the pair"):
        VQVAE.from_pretrained(saved)


def test_config_of_other_weights_is_refused(saved, tmp_path):
    make_model().save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "config.json", saved / "config.json")
    with pytest.raises(ValueError, match=r"do not belong together .* restore the pair"):
        VQVAE.from_pretrained(saved)


def test_hash_of_other_weights_is_refused(saved):
    edit_config(saved, lambda config: config.update(weights_sha256="0" * 64))
    with pytest.raises(ValueError, match="do not belong together"):
        VQVAE.from_pretrained(saved)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda s: s.update({"decoder.project.bias": torch.zeros(9)}),
            r"F32 \(6\), got F32 \(9\)",
        ),
        (
            lambda s: s.update({"decoder.project.bias": torch.zeros(6).half()}),
            r"F32 \(6\), got F16",
        ),
        (
            lambda s: s.update({"decoder.project.bias": torch.zeros(6).int()}),
            r"F32 \(6\), got I32",
        ),
        (lambda s: s.pop("quantizer.usage_sum"), r"usage_sum must be F32 \(7, 4\), got no tensor"),
        (lambda s: s.update(extra=torch.zeros(2)), r"extra must be no tensor, got F32 \(2\)"),
        (lambda s: s.update({"a\nb": torch.zeros(2)}), "a b must be no tensor, got F32"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_refused(saved, edit, message):
    edit_weights(saved, edit)
    with pytest.raises(ValueError, match=f"does not fit config.json: .*{message}"):
        VQVAE.from_pretrained(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused(saved, value):
    edit_weights(saved, lambda state: state["encoder.project.bias"].fill_(value))
    with pytest.raises(ValueError, match=r"weights must be finite, but encoder\.project\.bias in"):
        VQVAE.from_pretrained(saved)


def test_weights_that_are_not_float32_are_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"must be float32 .* is torch\.bfloat16: .* \.float\(\)"):
        make_model().bfloat16().save_pretrained(tmp_path / "vqvae")
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_of_another_kind_is_refused(tmp_path):
    save_artifact(tmp_path / "prior", "prior", {}, torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="the kind vqvae is required, got 'prior'"):
        VQVAE.from_pretrained(tmp_path / "prior")


def test_another_format_version_is_refused(saved):
    edit_config(saved, lambda config: config.update(format_version=1))
    with pytest.raises(ValueError, match=r"version 2 is required, got 1"):
        VQVAE.from_pretrained(saved)


@pytest.mark.parametrize(
    "text", ["", '{"kind": "vqvae"', "[1, 2]", "{}", "\x00\xff", "[" * 60_000, " " * 70_000]
)
def test_a_damaged_config_is_refused(saved, text):
    (saved / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"must be the config of a saved vqvae, but") as error:
        VQVAE.from_pretrained(saved)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("edit", "name"),
    [
        (lambda c: c.update(note="x"), "note"),
        (lambda c: c.pop("model"), "model"),
        (lambda c: c["model"].pop("width"), "width"),
        (lambda c: c["model"].update(width="6"), "width"),
        (lambda c: c["model"].update(width=0), "width must be at least 1"),
        (lambda c: c["model"].update(likelihood="l2"), "likelihood"),
        (lambda c: c["model"]["quantizer"].update(kind="rvq"), "'ema', 'gradient'"),
        (lambda c: c["model"]["quantizer"].update(cosine="l1"), "cosine"),
        (lambda c: c.update(model=[]), "model"),
        (lambda c: c.update(image_shape=[8, 8]), "image_shape"),
        (lambda c: c.update(image_shape=[1, 0, 28]), "image_shape must be .* from 1 to 65,536"),
        (lambda c: c.update(image_shape=[1, 10**6, 28]), "image_shape must be .* from 1 to 65,536"),
        (lambda c: c.update(image_shape=None), "image_shape"),
    ],
)
def test_an_impossible_config_is_refused(saved, edit, name):
    edit_config(saved, edit)
    with pytest.raises(ValueError, match=rf"must be the config of .*{name}") as error:
        VQVAE.from_pretrained(saved)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        {"width": 6000},
        {"downsampling": 4, "fine_width": 65_536},
        {"num_layers": 257},
        {"num_layers": 10**9},
        {"quantizer.codebook_size": 10**7},
        {"quantizer.codebook_dim": 4096},
        {"quantizer.kmeans_batches": 10**40},
        {"quantizer": {"kind": "residual", "num_quantizers": 10**9}},
        {"quantizer": {"kind": "residual", "num_quantizers": 256}},
        {"quantizer": {"kind": "product", "groups": 10**9, "codebook_dim": 4 * 10**9}},
        {"quantizer": {"kind": "finite_scalar", "codebook_size": 2**200, "levels": [2] * 200}},
        {"quantizer": {"kind": "finite_scalar", "codebook_size": 2**62 * 3**40, "levels": None}},
        {"quantizer": {"kind": "lookup_free", "codebook_size": 2**400}},
    ],
    ids=str,
)
def test_config_that_asks_for_more_than_the_file_holds_allocates_nothing(saved, values):
    def edit(config):
        model = config["model"]
        for name, value in values.items():
            if isinstance(value, dict):
                base = make_model((1, 8, 8), value["kind"])
                model["quantizer"] = json.loads(json.dumps(asdict(base.config.quantizer))) | value
            elif name.startswith("quantizer."):
                model["quantizer"][name.removeprefix("quantizer.")] = value
            else:
                model[name] = value

    edit_config(saved, edit)
    with NoMemory(), pytest.raises(ValueError, match=r"does not fit config\.json|must be") as error:
        VQVAE.from_pretrained(saved)
    assert "\n" not in str(error.value)


def test_saved_files_follow_the_umask(tmp_path):
    previous = os.umask(0o022)
    try:
        make_model().save_pretrained(tmp_path / "vqvae")
    finally:
        os.umask(previous)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "vqvae").iterdir()}
    assert modes == {"config.json": 0o644, "model.safetensors": 0o644}
