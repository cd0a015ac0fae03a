"""Saving and loading a prior: bit-exact, and configs that do not fit are refused.

The files themselves are stage one's; see its tests of the same module.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sealing import NoMemory, edit_record, edit_weights
from tiny_priors import CONFIGS, KINDS, SHAPES, as_grids, make_prior, random_labels, random_sequence

import stage2_prior
from stage2_prior import CodePrior, GridSpec, build_prior

GRIDS = (GridSpec(2, 3, 5), GridSpec(2, 3, 4))


@pytest.fixture(params=KINDS)
def saved(request, tmp_path):
    """A directory with a saved prior of either kind."""
    make_prior(request.param, GRIDS, 3).save_pretrained(tmp_path / "prior")
    return tmp_path / "prior"


def edit_config(directory, edit):
    edit_record(directory / "config.json", edit)


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_default_dtype_does_not_matter(saved, dtype):
    labels = random_labels(3, 4)
    expected = CodePrior.from_pretrained(saved).sample(4, labels)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        codes = CodePrior.from_pretrained(saved).sample(4, labels)
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(before)
    assert all(map(torch.equal, codes, expected))


@pytest.mark.slow
def test_loading_imports_no_symbolic_algebra(saved):
    # Which torch imports to make some tensors without memory, and which takes seconds.
    code = (
        "import sys; from stage2_prior import CodePrior; CodePrior.from_pretrained(sys.argv[1]);"
        "sys.exit('sympy' in sys.modules)"
    )
    root = Path(stage2_prior.__file__).parents[1]
    command = [sys.executable, "-c", code, str(saved)]
    assert subprocess.run(command, cwd=root, check=False).returncode == 0


@pytest.mark.parametrize("vqvae_hash", [None, "0" * 64])
def test_hash_of_the_vqvae_is_kept(tmp_path, vqvae_hash):
    build_prior(CONFIGS["pixelcnn"], GRIDS, vqvae_hash=vqvae_hash).save_pretrained(tmp_path / "p")
    assert CodePrior.from_pretrained(tmp_path / "p").vqvae_hash == vqvae_hash


def test_weights_that_do_not_fit_the_config_are_refused(saved):
    edit_weights(saved, lambda state: state.update({"heads.0.bias": torch.zeros(6)}))
    message = r"does not fit config\.json: heads\.0\.bias must be F32 \(5\), got F32 \(6\)"
    with pytest.raises(ValueError, match=message):
        CodePrior.from_pretrained(saved)


@pytest.mark.parametrize(
    ("edit", "name"),
    [
        (lambda c: c.update(colour=1), "colour"),
        (lambda c: c.pop("grids"), "grids"),
        (lambda c: c.update(grids=[]), "at least one grid is required, got none"),
        (lambda c: c["grids"][0].pop("width"), r"grids\.0\.width"),
        (lambda c: c["grids"][0].update(height=0), "must be at least 1, got GridSpec"),
        (lambda c: c["grids"][0].update(height=7.0), r"grids\.0\.height"),
        (lambda c: c["grids"][0].update(height=True), r"grids\.0\.height"),
        (lambda c: c.update(grids=None), "grids"),
        (lambda c: c.update(context_grids=[[7, 7, 8]]), r"context_grids\.0"),
        (lambda c: c.update(num_classes=0), "num_classes must be from 1 to 16,777,216, or None"),
        (lambda c: c.update(num_classes="3"), "num_classes"),
        (lambda c: c.update(num_views=0), "num_views must be from 1 to 1,024, got 0"),
        (lambda c: c.update(vqvae_sha256=5), "vqvae_sha256"),
        (lambda c: c.update(model=None), "model"),
        (lambda c: c["model"].update(kind="rnn"), "'transformer', 'pixelcnn'.*got 'rnn'"),
        (lambda c: c["model"].update(colour=1), r"model\.colour"),
        (lambda c: c["model"].pop("width"), r"model\.width"),
        (lambda c: c["model"].update(num_layers=True), r"model\.num_layers"),
        (lambda c: c["model"].update(dropout=None), r"model\.dropout"),
        (lambda c: c["model"].update(width=0), "width must be at least 1, got 0"),
    ],
)
def test_config_of_another_form_is_refused_in_one_sentence(saved, edit, name):
    edit_config(saved, edit)
    with pytest.raises(ValueError, match=rf"must be the config of a saved prior.*{name}") as error:
        CodePrior.from_pretrained(saved)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c["model"].update(num_layers=30),
        lambda c: c["model"].update(num_layers=10**8),
        lambda c: c["model"].update(width=6000, num_heads=6),
        lambda c: c["model"].update(width=2**63),
        lambda c: c["model"].update(num_heads=10**9),
        lambda c: c["grids"][0].update(codebook_size=10**7),
        lambda c: c["grids"][0].update(codebook_size=2**63),
        lambda c: c["grids"][0].update(height=10**6),
        lambda c: c["grids"][0].update(width=7_000_000),
        lambda c: c.update(grids=c["grids"] * 129),
        lambda c: c.update(context_grids=c["grids"] * 129),
        lambda c: c.update(num_classes=10**7),
        lambda c: c.update(num_classes=10**40),
        lambda c: c.update(num_views=10**9),
    ],
)
def test_config_that_asks_for_more_than_the_file_holds_allocates_nothing(saved, edit):
    edit_config(saved, edit)
    with NoMemory(), pytest.raises(ValueError, match=r"does not fit config\.json|must be"):
        CodePrior.from_pretrained(saved)


def test_prior_without_grids_is_refused():
    with pytest.raises(ValueError, match="at least one grid is required, got none"):
        build_prior(CONFIGS["transformer"], ())


@pytest.mark.parametrize("num_classes", [0, -1])
def test_prior_with_less_than_one_class_is_refused(num_classes):
    with pytest.raises(ValueError, match=f"must be from 1 to .* or None, got {num_classes}"):
        build_prior(CONFIGS["transformer"], GRIDS, num_classes)


def test_pixelcnn_refuses_grids_of_several_shapes():
    grids = (GridSpec(2, 2, 3), GridSpec(4, 4, 3))
    with pytest.raises(
        ValueError, match=r"needs grids of one shape, got \[\(2, 2\), \(4, 4\)\]: use"
    ):
        build_prior(CONFIGS["pixelcnn"], grids)
