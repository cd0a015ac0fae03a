"""The contract of `quantizers.base`, for every kind, plain and cosine."""

import numpy as np
import pytest
import torch
from tiny_vqvae import KINDS, changed, make_quantizer, state_of

BUFFERS = {
    "ema": {"codebook", "usage_average", "usage_sum"},
    "gradient": {"codebook", "usage_average"},
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["plain", "cosine"])
def quantizer(request, kind):
    return make_quantizer(kind, cosine=request.param, restart_threshold=0.03)


@pytest.fixture
def z_e():
    return torch.randn(2, 4, 3, 5)


def train_one_step(quantizer, z_e):
    """One step as the trainer takes it: the forward pass, then gradient descent."""
    quantizer.train()
    loss = torch.stack(list(quantizer(z_e).losses.values())).sum()
    parameters = list(quantizer.parameters())
    if parameters:
        loss.backward()
        torch.optim.SGD(parameters, lr=0.1).step()


def test_forward_gives_z_q_of_the_shape_of_z_e(quantizer, z_e):
    output = quantizer(z_e)
    assert output.z_q.shape == z_e.shape
    assert output.z_q.dtype == torch.float32


def test_forward_gives_int64_grids_in_range(quantizer, z_e):
    (codes,) = quantizer(z_e).codes
    assert codes.shape == (2, 3, 5)
    assert codes.dtype == torch.int64
    assert set(codes.unique().tolist()) <= set(range(7))


def test_sizes_are_those_of_the_config(quantizer):
    assert quantizer.codebook_sizes == (7,)
    assert quantizer.codebook_dim == 4


def test_losses_are_finite_float32_scalars(quantizer, z_e):
    for loss in quantizer(z_e).losses.values():
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert loss.isfinite()


def test_z_q_is_exactly_the_decoded_codes(quantizer, z_e):
    output = quantizer.eval()(z_e)
    assert torch.equal(output.z_q, quantizer.decode(output.codes))


def test_encode_gives_the_codes_of_forward(quantizer, z_e):
    assert torch.equal(quantizer.encode(z_e)[0], quantizer.eval()(z_e).codes[0])


def test_decoded_codes_are_the_nearest_vectors(quantizer, z_e):
    def points_of(grid):
        points = grid.detach().double().permute(0, 2, 3, 1).reshape(-1, 4).numpy()
        norms = np.linalg.norm(points, axis=1, keepdims=True)
        return points / norms if quantizer.config.cosine else points

    vectors = points_of(quantizer.codebook.detach().view(1, 7, 4, 1).transpose(1, 2))
    expected = ((points_of(z_e)[:, None] - vectors[None]) ** 2).sum(axis=2).min(axis=1)
    decoded = points_of(quantizer.decode(quantizer.encode(z_e)))
    distances = ((points_of(z_e) - decoded) ** 2).sum(axis=1)
    # float32 rounding of vectors near one.
    np.testing.assert_allclose(distances, expected, atol=1e-5)


def test_encode_inverts_decode(quantizer):
    codes = torch.arange(7).view(1, 1, 7)
    assert torch.equal(quantizer.encode(quantizer.decode((codes,)))[0], codes)


def test_cosine_ignores_the_length_of_z_e(kind, z_e):
    quantizer = make_quantizer(kind, cosine=True)
    lengths = torch.rand(2, 1, 3, 5) * 10 + 0.1
    assert torch.equal(quantizer.encode(z_e * lengths)[0], quantizer.encode(z_e)[0])


def test_cosine_vectors_have_unit_length(kind):
    quantizer = make_quantizer(kind, cosine=True)
    torch.testing.assert_close(quantizer.vectors().norm(dim=1), torch.ones(7))


def test_forward_computes_in_float32_under_autocast(quantizer):
    z_e = torch.randn(8, 4, 16, 16)  # enough points for bfloat16 to err somewhere
    quantizer.eval()
    expected = quantizer(z_e)
    with torch.autocast("cpu", torch.bfloat16):
        output = quantizer(z_e)
    assert torch.equal(output.z_q, expected.z_q)
    assert output.losses == expected.losses


def test_encode_computes_in_float32_under_autocast(quantizer):
    z_e = torch.randn(8, 4, 16, 16)
    expected = quantizer.encode(z_e)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer.encode(z_e)[0], expected[0])


def test_forward_of_bfloat16_z_e_gives_float32(quantizer, z_e):
    output = quantizer(z_e.bfloat16())
    assert {output.z_q.dtype, *(loss.dtype for loss in output.losses.values())} == {torch.float32}


def test_training_changes_everything_it_learns(quantizer, kind, z_e):
    before = state_of(quantizer)
    train_one_step(quantizer, z_e)
    assert changed(before, state_of(quantizer)) == BUFFERS[kind]


def test_evaluation_changes_nothing(quantizer, z_e):
    before = state_of(quantizer)
    quantizer.usage_average[0] = before["usage_average"][0] = 0.0  # a dead code is no exception
    quantizer.eval()(z_e)
    assert not changed(before, state_of(quantizer))


def test_encode_changes_nothing_in_training_mode(quantizer, z_e):
    before = state_of(quantizer)
    quantizer.usage_average[0] = before["usage_average"][0] = 0.0
    quantizer.train().encode(z_e)
    assert not changed(before, state_of(quantizer))


def test_forward_does_not_change_z_e(quantizer, z_e):
    before = z_e.clone()
    quantizer.train()(z_e)
    assert torch.equal(z_e, before)
