"""Residual quantization against a loop over its stages, its prefixes, and quantizer dropout."""

from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny_vqvae import KINDS, make_model, random_images, residual_config, to_rows

from stage1_vqvae.quantizers.build import build_quantizer

BASES = [kind for kind in KINDS if kind not in ("gumbel", "residual", "product")]
# What a stage's residual is divided by, of levels 5 4 3 2: half a step of 1 / (L // 2).
SCALES = {
    "finite_scalar": np.array([1 / 4, 1 / 4, 1 / 2, 1 / 2]),
    "lookup_free": np.full(4, 0.5),
}
# What moves the vectors of later stages, before they are scaled: half a step where L is even.
OFFSETS = {"finite_scalar": np.array([0, 1 / 4, 0, 1 / 2])}


@pytest.fixture(params=BASES)
def base(request):
    return request.param


@pytest.fixture
def quantizer(base):
    return build_quantizer(residual_config(base))


@pytest.fixture
def z_e():
    return torch.randn(3, 4, 5, 5)


def scale_of(base, stage):
    """(1, D, 1, 1) by which the vectors of a stage are smaller."""
    return torch.from_numpy(SCALES.get(base, np.ones(4)) ** stage).float().view(1, 4, 1, 1)


def offset_of(base, stage):
    """(1, D, 1, 1) by which the vectors of a stage are moved."""
    offset = OFFSETS.get(base, np.zeros(4)) * (stage > 0)
    return torch.from_numpy(offset).float().view(1, 4, 1, 1)


def fitted(base, num_quantizers, z_e, **options):
    """A quantizer in evaluation mode whose stages have seen the residuals of `z_e`."""
    start = {"simvq": {"moment_batches": 1}, "finite_scalar": {}, "lookup_free": {}}
    options = start.get(base, {"kmeans_batches": 1}) | options
    quantizer = build_quantizer(residual_config(base, num_quantizers=num_quantizers, **options))
    quantizer.initialise([z_e])
    return quantizer.eval()


def loop(quantizer, base, z_e):
    """Stage by stage with each stage's own public functions: z_q, codes and loss terms."""
    z = quantizer.stages[0].to_code_space(z_e)
    residual, z_q, codes, losses = z, torch.zeros_like(z), [], {}
    for i, stage in enumerate(deepcopy(quantizer.stages)):
        scale, offset = scale_of(base, i), offset_of(base, i)
        output = stage.quantize(residual / scale - offset)
        found = (output.z_q.detach() + offset) * scale
        z_q, residual = z_q + found, residual - found
        codes += output.codes
        for name, loss in output.losses.items():
            losses[name] = losses.get(name, 0.0) + loss.item()
    return z_q, codes, losses


def test_forward_equals_a_loop_over_stages(quantizer, base, z_e):
    quantizer.train()
    torch.manual_seed(3)
    z_q, codes, losses = loop(quantizer, base, z_e)
    torch.manual_seed(3)
    output = quantizer(z_e)
    assert all(map(torch.equal, output.codes, codes))
    # The scales of finite_scalar are powers taken in float32 here and in float64 there.
    torch.testing.assert_close(output.z_q.detach(), z_q, rtol=1e-6, atol=1e-6)
    found = {name: loss.item() for name, loss in output.losses.items()}
    assert found == pytest.approx(losses, rel=1e-5, abs=1e-7)


def test_encode_equals_a_loop_over_nearest_vectors(z_e):
    quantizer = build_quantizer(residual_config("ema"))
    residual = to_rows(z_e)
    for stage, grid in enumerate(quantizer.encode(z_e)):
        vectors = quantizer.code_vectors()[stage].double().numpy()
        codes = ((residual[:, None] - vectors[None]) ** 2).sum(axis=2).argmin(axis=1)
        np.testing.assert_array_equal(grid.flatten(), codes)
        residual = residual - vectors[codes]


def test_finite_scalar_stages_refine_the_bounded_z(z_e):
    quantizer = build_quantizer(residual_config("finite_scalar", num_quantizers=4))
    levels, half = np.array([5, 4, 3, 2]), np.array([2, 2, 1, 1])
    z = to_rows(quantizer.to_code_space(z_e))
    residual = z.copy()
    for stage in range(4):
        scale = SCALES["finite_scalar"] ** stage
        centre = np.where(levels % 2 == 0, 0.5, 0.0) * (stage > 0)
        digits = np.clip(np.rint(residual / scale * half - centre) + half, 0, levels - 1)
        residual = residual - (digits - half + centre) / half * scale
    # Rounding to a level is decided in float32: away from the middle of two, where none is near.
    np.testing.assert_allclose(to_rows(quantizer(z_e).z_q), z - residual, atol=1e-6)


@pytest.mark.parametrize("levels", [(2,), (3,), (4,), (7,), (3, 8, 2, 5)])
def test_finite_scalar_stages_divide_the_largest_error(levels):
    # By L where it is even, and by L - 1 where it is odd: then two levels lie on the bounds.
    quantizer = build_quantizer(
        residual_config("finite_scalar", num_quantizers=5, levels=levels)
    ).eval()
    z_e = torch.linspace(-6, 6, 200_001)[None, None, None].expand(1, len(levels), 1, -1)
    z, codes = to_rows(quantizer.to_code_space(z_e)), quantizer.encode(z_e)
    errors = [
        np.abs(to_rows(quantizer.decode(codes[:stages])) - z).max(axis=0) for stages in range(1, 6)
    ]
    divisors = [size - size % 2 for size in levels]
    for before, after in pairwise(errors):
        # The points lie near the worst ones, not on them; float32.
        np.testing.assert_allclose(after, before / divisors, rtol=5e-3)


def test_lookup_free_stages_halve_the_bound_of_the_error():
    quantizer = build_quantizer(residual_config("lookup_free", num_quantizers=4))
    z_e = torch.rand(3, 4, 9, 9) * 4 - 2
    z, codes = to_rows(z_e), quantizer.encode(z_e)
    for stages in range(1, 5):
        # Signs times 1, 1/2, 1/4, ... reach everything within [-2, 2].
        error = np.abs(to_rows(quantizer.decode(codes[:stages])) - z)
        assert error.max() <= 2.0 ** (1 - stages) + 1e-6  # float32


def test_each_stage_has_a_codebook_of_its_own():
    vectors = build_quantizer(residual_config("ema")).code_vectors()
    assert not torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[1], vectors[2])


# --- prefixes


def test_prefix_decodes_to_the_sum_of_its_vectors(quantizer, z_e):
    stages, codes, vectors = 2, quantizer.encode(z_e), quantizer.code_vectors()
    expected = sum(
        v.detach().double()[grid].permute(0, 3, 1, 2)
        for v, grid in zip(vectors[:stages], codes[:stages], strict=True)
    )
    torch.testing.assert_close(
        quantizer.decode(codes[:stages]).double(), expected, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("num_quantizers", [1, 2, 5, 12])
def test_z_q_is_exactly_the_decoded_codes_of_any_number_of_stages(num_quantizers):
    quantizer = build_quantizer(residual_config("ema", num_quantizers=num_quantizers)).eval()
    for shape in [(1, 4, 1, 1), (2, 4, 3, 5), (1, 4, 16, 16)]:
        output = quantizer(torch.randn(shape))
        assert torch.equal(output.z_q, quantizer.decode(output.codes))


def test_codes_of_fewer_stages_are_a_prefix():
    few, many = (build_quantizer(residual_config("ema", num_quantizers=n)) for n in (2, 5))
    few.load_state_dict(
        {name: t for name, t in many.state_dict().items() if int(name.split(".")[1]) < 2}
    )
    z_e = torch.randn(2, 4, 3, 3)
    assert all(map(torch.equal, few.encode(z_e), many.encode(z_e)[:2]))


@pytest.mark.parametrize("base", [base for base in BASES if base != "index_backprop"])
def test_error_does_not_grow_with_more_fitted_stages(base):
    # Not of index_backprop, whose choice by similarity is not the nearest vector.
    z_e = torch.randn(8, 4, 8, 8) * 1.5
    quantizer = fitted(base, 4, z_e)
    z, codes = to_rows(quantizer.to_code_space(z_e)), quantizer.encode(z_e)
    errors = [
        np.square(to_rows(quantizer.decode(codes[:stages])) - z).mean() for stages in range(1, 5)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


def test_finite_scalar_error_of_odd_levels_never_grows_at_any_point(z_e):
    # Zero is a level of every stage, so that no stage does harm. Of even levels it is not.
    levels = (5, 3, 7, 3)
    quantizer = build_quantizer(residual_config("finite_scalar", num_quantizers=4, levels=levels))
    z, codes = to_rows(quantizer.to_code_space(z_e)), quantizer.encode(z_e)
    errors = [np.abs(to_rows(quantizer.decode(codes[:n])) - z) for n in range(1, 5)]
    for before, after in pairwise(errors):
        assert (after <= before + 1e-6).all()  # float32


def test_initialise_fits_each_stage_to_what_is_left_over(z_e):
    quantizer = fitted("ema", 3, z_e)
    residual = z_e
    for stage in quantizer.stages:
        points = to_rows(residual)
        vectors = stage.codebook.double().numpy()
        codes = ((points[:, None] - vectors[None]) ** 2).sum(axis=2).argmin(axis=1)
        explained = 1 - np.square(points - vectors[codes]).sum() / np.square(points).sum()
        # Seven clusters of 75 points in four dimensions; random vectors would explain nothing.
        assert explained > 0.4
        residual = residual - stage.decode(stage.assign(residual))


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_model_decodes_a_prefix_to_the_training_size(stages):
    model = make_model((3, 9, 6), quantizer=residual_config("ema"))
    codes = model.encode(random_images(2, 3, 9, 6))
    images = model.decode(codes[:stages])
    assert images.shape == (2, 3, 9, 6)
    z_q = model.quantizer.decode(codes[:stages])
    with torch.no_grad():
        expected = model.likelihood.mean(model.decoder(z_q))[..., :9, :6]
    # A gray level is 1 / 127.5; half of it for rounding and as much for another summing order.
    assert (images / 127.5 - 1 - expected).abs().max() < 1.01 / 127.5


def test_model_refuses_no_grid_and_too_many():
    model = make_model((3, 9, 6), quantizer=residual_config("ema"))
    codes = model.encode(random_images(2, 3, 9, 6))
    for wrong in ((), (*codes, codes[0])):
        with pytest.raises(ValueError, match=f"a tuple of 1 to 3 grids, got {len(wrong)}"):
            model.decode(wrong)


# --- gradients


@pytest.mark.parametrize(
    ("base", "dropout"),
    [("ema", 0.0), ("simvq", 0.9), ("finite_scalar", 0.9), ("lookup_free", 0.0)],
)
def test_gradient_of_z_q_reaches_z_once(base, dropout, z_e):
    config = residual_config(base, num_quantizers=5, quantizer_dropout=dropout)
    quantizer = build_quantizer(config).train()
    z = quantizer.to_code_space(z_e).detach().requires_grad_()
    weights = torch.randn_like(z)
    (quantizer.quantize(z).z_q * weights).sum().backward()
    # Copies of later stages are added and taken away again, in float32.
    torch.testing.assert_close(z.grad, weights, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("base", ["stochastic", "index_backprop"])
def test_gradient_of_z_q_of_a_soft_base_is_that_of_the_choices(base, z_e):
    # d z_q / d z = sum of each stage's own Jacobian at the residual that it was given.
    quantizer = build_quantizer(residual_config(base)).train()
    weights = torch.randn_like(z_e)
    torch.manual_seed(3)
    expected, residual = torch.zeros_like(z_e), z_e
    for stage in quantizer.stages:
        given = residual.clone().requires_grad_()
        z_q = stage.quantize(given).z_q
        (z_q * weights).sum().backward()
        expected += given.grad
        residual = residual - z_q.detach()
    torch.manual_seed(3)
    z_e.requires_grad_()
    (quantizer(z_e).z_q * weights).sum().backward()
    torch.testing.assert_close(z_e.grad, expected, rtol=1e-5, atol=1e-6)


def test_losses_of_every_stage_reach_z_e(z_e):
    # The sum over stages of 2 beta r_{i+1} / N: each stage's commitment pulls at z_e.
    quantizer = build_quantizer(residual_config("ema", commitment_weight=0.5)).eval()
    z_e.requires_grad_()
    quantizer(z_e).losses["commitment"].backward()
    codes, z = quantizer.encode(z_e), to_rows(z_e)
    left_over = sum(z - to_rows(quantizer.decode(codes[:n])) for n in (1, 2, 3))
    np.testing.assert_allclose(
        to_rows(z_e.grad), 0.5 * 2 * left_over / z.size, rtol=1e-4, atol=1e-7
    )


# --- quantizer dropout


def kept_stages(quantizer, z_e):
    """How many stages each image's z_q is the sum of; fails where it is of no prefix."""
    output = quantizer.train()(z_e)
    prefixes = torch.stack([quantizer.decode(output.codes[:n]) for n in (1, 2, 3)])
    equal = (prefixes == output.z_q).flatten(2).all(dim=2)  # (3, B)
    assert (equal.sum(dim=0) == 1).all()
    return equal.long().argmax(dim=0) + 1


def test_dropout_keeps_a_prefix_of_each_image():
    quantizer = build_quantizer(residual_config("simvq", quantizer_dropout=0.9))
    kept = kept_stages(quantizer, torch.randn(60, 4, 2, 2))
    assert set(kept.tolist()) == {1, 2, 3}


def test_dropout_keeps_each_prefix_as_often_as_configured():
    quantizer = build_quantizer(residual_config("simvq", quantizer_dropout=0.6))
    kept = kept_stages(quantizer, torch.randn(6000, 4, 1, 1))
    # Of six in ten images a uniform prefix; all stages of the others.
    expected = 6000 * np.array([0.2, 0.2, 0.6])
    counts = np.bincount(kept - 1, minlength=3)
    # Chi-square with 2 degrees of freedom: exceeded once in a million.
    assert ((counts - expected) ** 2 / expected).sum() < 27.7


def test_dropout_trains_all_stages_and_gives_all_codes():
    full, dropped = (
        build_quantizer(residual_config("ema", quantizer_dropout=p)) for p in (0.0, 0.9)
    )
    dropped.load_state_dict(full.state_dict())
    z_e = torch.randn(4, 4, 3, 3)
    outputs = [quantizer.train()(z_e) for quantizer in (full, dropped)]
    assert all(map(torch.equal, outputs[0].codes, outputs[1].codes))
    assert outputs[0].losses == outputs[1].losses
    state = full.state_dict()
    assert all(torch.equal(state[name], t) for name, t in dropped.state_dict().items())


def test_dropout_does_nothing_in_evaluation():
    quantizer = build_quantizer(residual_config("ema", quantizer_dropout=0.9)).eval()
    output = quantizer(torch.randn(20, 4, 2, 2))
    assert torch.equal(output.z_q, quantizer.decode(output.codes))


# --- annealing


def test_set_progress_reaches_every_stage():
    options = {"restart_threshold": 0.5, "restart_until": 0.5}
    quantizer = build_quantizer(residual_config("gradient", **options)).train()
    for stage in quantizer.stages:
        stage.usage_average[0] = 0.0
    before = [v.detach().clone() for v in quantizer.code_vectors()]
    quantizer.set_progress(0.6)
    quantizer(torch.randn(2, 4, 3, 3))
    assert all(map(torch.equal, before, quantizer.code_vectors()))
    quantizer.set_progress(0.4)
    quantizer(torch.randn(2, 4, 3, 3))
    assert not any(map(torch.equal, before, quantizer.code_vectors()))
