"""Every kind and switch inside a whole VQ-VAE: saved, trained and measured."""

import pytest
import torch
from tiny_vqvae import CASES, base_of, grids_of, make_model, random_images

from stage1_vqvae import VQVAE
from stage1_vqvae.code_dump import read_code_dump, write_code_dump
from stage1_vqvae.images import to_uint8
from stage1_vqvae.objective import VQVAEObjective, measure_reconstruction

LIKELIHOODS = ("mse", "l1", "bernoulli")


@pytest.fixture(params=CASES)
def config(request):
    return CASES[request.param]


@pytest.fixture
def model(config):
    return make_model((3, 9, 6), quantizer=config)


@pytest.fixture
def images():
    return random_images(3, 3, 9, 6)


def test_saved_model_gives_the_same_codes_and_images(tmp_path, model, images):
    VQVAEObjective(model.train()).initialise([images, images])
    model(images)  # so that moving statistics are not those of a new model
    model.eval().save_pretrained(tmp_path / "vqvae")
    loaded = VQVAE.from_pretrained(tmp_path / "vqvae")
    model.to(memory_format=torch.channels_last)
    codes = model.encode(images)
    assert loaded.config == model.config
    assert all(map(torch.equal, loaded.encode(images), codes))
    assert torch.equal(loaded.decode(codes), model.decode(codes))


def test_encode_gives_one_grid_per_codebook(model, config, images):
    codes = model.encode(images)
    assert [tuple(grid.shape) for grid in codes] == [(3, 5, 3)] * grids_of(config)
    assert model.grid_shapes == ((5, 3),) * grids_of(config)
    assert model.codebook_sizes == (base_of(config).codebook_size,) * grids_of(config)


def test_decode_shows_what_forward_computes(model, images):
    with torch.no_grad():
        expected = to_uint8(model.likelihood.mean(model(images).output)).int()
    decoded = model.decode(model.encode(images)).int()
    # The same convolutions, maybe summed in another order: a value may round to the next level.
    assert (decoded - expected).abs().max() <= 1


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradient_of_the_loss_reaches_every_parameter(config, likelihood, images):
    model = make_model((3, 9, 6), quantizer=config, likelihood=likelihood).train()
    step = VQVAEObjective(model)(images)
    assert step.loss.isfinite()
    step.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert {name for name, g in gradients.items() if g is None or not g.any()} == set()
    assert {name for name, g in gradients.items() if not g.isfinite().all()} == set()


def test_loss_under_autocast_is_float32_and_has_finite_gradients(config, images):
    model = make_model((3, 9, 6), quantizer=config, likelihood="bernoulli").train()
    with torch.autocast("cpu", torch.bfloat16):
        step = VQVAEObjective(model)(images)
    assert {step.loss.dtype, *(term.dtype for term in step.metrics.values())} == {torch.float32}
    step.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_measure_reconstruction_has_figures_of_every_grid(model, config, images):
    figures = measure_reconstruction(model, [images])
    assert len(figures.usage) == len(figures.perplexity) == len(figures.entropy) == grids_of(config)
    used = [len(grid.unique()) for grid in model.encode(images)]
    expected = [n / size for n, size in zip(used, model.codebook_sizes, strict=True)]
    assert list(figures.usage) == pytest.approx(expected, rel=1e-12)


def test_dump_holds_every_grid(tmp_path, model, config, images):
    splits = {name: (3, [(images, None)]) for name in ("train", "validation", "test")}
    write_code_dump(tmp_path / "codes", model, splits, num_classes=None)
    dump = read_code_dump(tmp_path / "codes")
    assert dump.codebook_sizes == model.codebook_sizes
    assert dump.grid_shapes == model.grid_shapes
    expected = model.encode(images)
    assert len(expected) == grids_of(config)
    assert all(
        torch.equal(grid.long(), codes)
        for grid, codes in zip(dump.splits["test"].codes, expected, strict=True)
    )
