"""Saving and loading a prior: bit-exact, and configs that do not fit are refused.

The files themselves are stage one's; see its tests of the same module.
"""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sealing import NoMemory, edit_record, edit_weights
from tiny_priors import (
    CONFIGS,
    KINDS,
    SQUARE,
    VARIANTS,
    as_context,
    as_grids,
    make_prior,
    params,
    random_context,
    random_labels,
    random_sequence,
)

import stage2_prior
from stage2_prior import GridSpec, PriorSpec, build_prior, load_prior

GRIDS = (GridSpec(2, 3, 5), GridSpec(2, 3, 4))


@pytest.fixture(params=KINDS)
def saved(request, tmp_path):
    """A directory with a saved prior of either kind."""
    make_prior(request.param, GRIDS, 3).save_pretrained(tmp_path / "prior")
    return tmp_path / "prior"


def edit_config(directory, edit):
    edit_record(directory / "config.json", edit)


@pytest.mark.parametrize(
    "variant",
    params(
        VARIANTS,
        *("transformer-one", "transformer-growing", "transformer-features"),
        *("transformer-any_order_context", "pixelcnn-one", "pixelcnn-equal"),
        *("pixelcnn-attention_inside", "pixelcnn-features", "pixelcnn-all"),
    ),
)
def test_loaded_prior_is_the_saved_one_bit_for_bit(tmp_path, variant):
    prior = variant.make(3).train()
    prior.save_pretrained(tmp_path / "prior")
    loaded = load_prior(tmp_path / "prior")
    assert type(loaded) is type(prior)
    assert (loaded.config, loaded.spec) == (prior.config, prior.spec)
    assert not loaded.training
    expected = prior.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[k]) for k, tensor in loaded.state_dict().items())
    codes, labels = as_grids(random_sequence(variant.grids, 4), variant.grids), random_labels(3, 4)
    context = as_context(random_context(variant.context, 4), variant.context)
    log_probs = [p.log_prob(codes, labels, context) for p in (loaded, prior)]
    assert torch.equal(*log_probs)
    samples = [p.sample(4, labels, context=context, seed=1) for p in (loaded, prior)]
    assert all(map(torch.equal, *samples))


@pytest.mark.parametrize(
    "spec",
    [
        PriorSpec(grids=GRIDS),
        PriorSpec(grids=GRIDS, num_classes=3, vqvae_hash="0" * 64, num_extra_labels=16),
    ],
)
def test_loaded_prior_has_the_spec_of_the_saved_one(tmp_path, spec):
    build_prior(CONFIGS["pixelcnn"], spec).save_pretrained(tmp_path / "prior")
    loaded = load_prior(tmp_path / "prior")
    assert (loaded.spec, loaded.vqvae_hash) == (spec, spec.vqvae_hash)


def test_default_dtype_does_not_matter(saved):
    labels = random_labels(3, 4)
    expected = load_prior(saved).sample(4, labels)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        codes = load_prior(saved).sample(4, labels)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before)
    assert all(map(torch.equal, codes, expected))


@pytest.mark.slow
def test_loading_imports_no_symbolic_algebra(saved):
    # Which torch imports to make some tensors without memory, and which takes seconds.
    code = (
        "import sys; from stage2_prior import load_prior; load_prior(sys.argv[1]);"
        "sys.exit('sympy' in sys.modules)"
    )
    root = Path(stage2_prior.__file__).parents[1]
    command = [sys.executable, "-c", code, str(saved)]
    assert subprocess.run(command, cwd=root, check=False).returncode == 0


def test_prior_in_another_precision_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"float32 .*torch\.float64"):
        make_prior("transformer", SQUARE).double().save_pretrained(tmp_path / "prior")


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path):
    make_prior("transformer", GRIDS, 3).save_pretrained(tmp_path / "prior")
    edit_weights(tmp_path / "prior", lambda state: state.update({"heads.0.bias": torch.zeros(6)}))
    with pytest.raises(ValueError, match=r"config\.json: heads\.0\.bias .*F32 \(5\), got F32 \(6"):
        load_prior(tmp_path / "prior")


def test_weights_without_the_attention_of_the_config_are_refused(tmp_path):
    make_prior("pixelcnn", SQUARE).save_pretrained(tmp_path / "prior")
    config = dataclasses.replace(CONFIGS["pixelcnn"], attention_every=1)
    edit_config(tmp_path / "prior", lambda c: c.update(model=dataclasses.asdict(config)))
    with pytest.raises(ValueError, match=r"config\.json: attention_blocks\.0\."):
        load_prior(tmp_path / "prior")


@pytest.mark.parametrize(
    ("edit", "name"),
    [
        (lambda c: c.update(colour=1), "colour"),
        (lambda c: c.pop("spec"), "spec"),
        (lambda c: c["spec"].update(grids=[]), "at least one grid"),
        (lambda c: c["spec"]["grids"][0].pop("width"), r"grids\.0\.width"),
        (lambda c: c["spec"]["grids"][0].update(height=0), "at least 1, got GridSpec"),
        (lambda c: c["spec"]["grids"][0].update(height=True), r"grids\.0\.height"),
        (lambda c: c["spec"].update(context=[[7, 7, 8]]), "context"),
        (lambda c: c["spec"].update(context={"height": 1, "width": 1}), "context"),
        (lambda c: c["spec"].update(num_classes=0), "num_classes .*got 0"),
        (lambda c: c["spec"].update(num_extra_labels=-1), "num_extra_labels .*got -1"),
        (lambda c: c["spec"].update(vqvae_hash=5), "vqvae_hash"),
        (lambda c: c["model"].update(kind="rnn"), "transformer.*pixelcnn.*got 'rnn'"),
        (lambda c: c["model"].update(colour=1), r"model\.colour"),
        (lambda c: c["model"].update(dropout=None), r"model\.dropout"),
        (lambda c: c["model"].update(width=0), "width .*got 0"),
    ],
)
def test_config_of_another_form_is_refused_in_one_sentence(tmp_path, edit, name):
    make_prior("transformer", GRIDS, 3).save_pretrained(tmp_path / "prior")
    edit_config(tmp_path / "prior", edit)
    with pytest.raises(ValueError, match=rf"config of a saved prior.*{name}") as error:
        load_prior(tmp_path / "prior")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c["model"].update(num_layers=30),
        lambda c: c["model"].update(num_layers=10**8),
        lambda c: c["model"].update(width=6000, num_heads=6),
        lambda c: c["spec"]["grids"][0].update(codebook_size=10**7),
        lambda c: c["spec"]["grids"][0].update(width=7_000_000),
        lambda c: c["spec"].update(grids=c["spec"]["grids"] * 129),
        lambda c: c["spec"].update(context=c["spec"]["grids"] * 129),
        lambda c: c["spec"].update(context={"height": 1, "width": 1, "dim": 10**9}),
        lambda c: c["spec"].update(context={"height": 10**9, "width": 1, "dim": 1}),
        lambda c: c["spec"].update(num_classes=10**40),
        lambda c: c["spec"].update(num_extra_labels=10**9),
    ],
)
def test_config_that_asks_for_more_than_the_file_holds_allocates_nothing(tmp_path, edit):
    saved = tmp_path / "prior"
    make_prior("transformer", GRIDS, 3).save_pretrained(saved)
    edit_config(saved, edit)
    with NoMemory(), pytest.raises(ValueError, match=r"does not fit config\.json|must "):
        load_prior(saved)
