"""Every kind of quantizer inside a whole VQ-VAE: saved, trained and measured."""

import pytest
import torch
from tiny_vqvae import CASES, REPRESENTATIVE, base_of, grids_of, make_model, random_images

from stage1_vqvae import VQVAE
from stage1_vqvae.code_dump import read_code_dump, write_code_dump
from stage1_vqvae.objective import VQVAEObjective, measure_reconstruction


@pytest.fixture(params=REPRESENTATIVE)
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


several_grids = pytest.mark.parametrize(
    "config",
    [CASES[name] for name in ("ema-all", "residual-finite_scalar", "product-lookup_free")],
    ids=["one grid", "residual", "product"],
)


@several_grids
def test_encode_returns_one_grid_per_codebook(model, config, images):
    codes = model.encode(images)
    assert [tuple(grid.shape) for grid in codes] == [(3, 5, 3)] * grids_of(config)
    assert model.grid_shapes == ((5, 3),) * grids_of(config)
    assert model.strides == (2,) * grids_of(config)
    assert model.codebook_sizes == (base_of(config).codebook_size,) * grids_of(config)


def test_loss_under_autocast_is_float32_and_reaches_every_parameter(config, images):
    model = make_model((3, 9, 6), quantizer=config, likelihood="bernoulli").train()
    with torch.autocast("cpu", torch.bfloat16):
        step = VQVAEObjective(model)(images)
    assert {step.loss.dtype, *(term.dtype for term in step.metrics.values())} == {torch.float32}
    step.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert all(parameter.grad.any() for parameter in model.parameters())


@several_grids
def test_measure_reconstruction_has_metrics_of_every_grid(model, config, images):
    metrics = measure_reconstruction(model, [images])
    assert len(metrics.usage) == len(metrics.perplexity) == len(metrics.entropy) == grids_of(config)
    used = [len(grid.unique()) for grid in model.encode(images)]
    expected = [n / size for n, size in zip(used, model.codebook_sizes, strict=True)]
    assert list(metrics.usage) == pytest.approx(expected, rel=1e-12)


@several_grids
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
