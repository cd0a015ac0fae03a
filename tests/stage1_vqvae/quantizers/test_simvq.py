"""SimVQ against its formulas in numpy (float64): a frozen codebook under a learned affine map."""

import numpy as np
import pytest
import torch
from tiny_vqvae import make_quantizer, to_rows

RATE = 0.3


@pytest.fixture(params=[False, True], ids=["plain", "cosine"])
def cosine(request):
    return request.param


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class ReferenceSimVQ:
    """The codebook and commitment terms, and the map's gradient by hand."""

    def __init__(self, quantizer):
        self.c = quantizer.codebook.double().numpy()
        self.W = quantizer.transform.weight.detach().double().numpy().copy()
        self.b = quantizer.transform.bias.detach().double().numpy().copy()
        self.cosine = quantizer.config.cosine

    def step(self, points, codebook_weight):
        z = unit(points) if self.cosine else points
        mapped = self.c @ self.W.T + self.b
        vectors = unit(mapped) if self.cosine else mapped
        codes = ((z[:, None] - vectors[None]) ** 2).sum(axis=2).argmin(axis=1)
        distance = ((z - vectors[codes]) ** 2).mean()
        for_codes = 2 * codebook_weight * (vectors[codes] - z) / z.size  # (N, D)
        if self.cosine:  # through v / |v|: only what is orthogonal to v turns it
            v = vectors[codes]
            lengths = np.linalg.norm(mapped[codes], axis=1, keepdims=True)
            for_codes = (for_codes - v * (for_codes * v).sum(axis=1, keepdims=True)) / lengths
        self.W -= RATE * for_codes.T @ self.c[codes]
        self.b -= RATE * for_codes.sum(axis=0)
        return codes, distance


def batches(steps=15):
    generator = np.random.default_rng(5)
    places = generator.normal(size=(5, 4)) + 2
    for _ in range(steps):
        points = places[generator.integers(0, 5, 30)] + 0.3 * generator.normal(size=(30, 4))
        yield torch.from_numpy(points).float().view(2, 3, 5, 4).permute(0, 3, 1, 2)


def train(quantizer):
    """Steps of gradient descent on the quantizer's losses, with what each gave."""
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=RATE)
    for z_e in batches():
        output = quantizer.train()(z_e)
        yield z_e, output
        optimizer.zero_grad()
        sum(output.losses.values()).backward()
        optimizer.step()


def test_codes_and_losses_are_those_of_the_reference(cosine):
    quantizer = make_quantizer("simvq", cosine=cosine, codebook_weight=2.0, commitment_weight=0.5)
    reference = ReferenceSimVQ(quantizer)
    for z_e, output in train(quantizer):
        codes, distance = reference.step(to_rows(z_e), codebook_weight=2.0)
        np.testing.assert_array_equal(output.codes[0].flatten(), codes)
        assert {name: loss.item() for name, loss in output.losses.items()} == {
            "codebook": pytest.approx(2.0 * distance, rel=1e-4),
            "commitment": pytest.approx(0.5 * distance, rel=1e-4),
        }


def test_map_after_fifteen_steps_is_that_of_the_reference(cosine):
    quantizer = make_quantizer("simvq", cosine=cosine, codebook_weight=2.0)
    reference = ReferenceSimVQ(quantizer)
    for z_e, _ in train(quantizer):
        reference.step(to_rows(z_e), codebook_weight=2.0)
    # Fifteen steps in float32: some 1e-6 relative per step.
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(quantizer.transform.weight.detach(), reference.W, **tolerance)
    np.testing.assert_allclose(quantizer.transform.bias.detach(), reference.b, **tolerance)


def test_the_frozen_codebook_is_no_parameter_and_stays():
    quantizer = make_quantizer("simvq")
    before = quantizer.codebook.clone()
    for _ in train(quantizer):
        pass
    assert torch.equal(quantizer.codebook, before)
    assert {name for name, _ in quantizer.named_parameters()} == {
        "transform.weight",
        "transform.bias",
    }


def test_a_step_moves_codes_that_nothing_chose():
    quantizer = make_quantizer("simvq").train()
    (before,) = (vectors.detach().clone() for vectors in quantizer.code_vectors())
    # All points at one place: a single code is chosen.
    output = quantizer(torch.full((1, 4, 3, 3), 2.0))
    assert len(output.codes[0].unique()) == 1
    sum(output.losses.values()).backward()
    torch.optim.SGD(quantizer.parameters(), lr=RATE).step()
    assert (quantizer.code_vectors()[0] != before).any(dim=1).all()


def test_map_starts_as_a_rotation_of_the_frozen_codebook():
    quantizer = make_quantizer("simvq")
    frozen, (vectors,) = quantizer.codebook, quantizer.code_vectors()
    # A rotation keeps all lengths and angles; float32.
    torch.testing.assert_close(vectors @ vectors.T, frozen @ frozen.T, rtol=1e-5, atol=1e-5)


def test_initialise_gives_the_codes_the_moments_of_the_points():
    quantizer = make_quantizer("simvq", codebook_size=20_000, codebook_dim=3, moment_batches=2)
    shape, place = torch.randn(3, 3), torch.tensor([5.0, -3.0, 1.0])
    batches = [(torch.randn(2, 8, 8, 3) @ shape + place).permute(0, 3, 1, 2) for _ in range(2)]
    quantizer.initialise(batches)
    rows = np.concatenate([to_rows(z_e) for z_e in batches])
    (vectors,) = (v.detach().double().numpy() for v in quantizer.code_vectors())
    covariance = np.cov(rows.T, bias=True)
    # 20,000 normal vectors: their moments stray by some 1/sqrt(20,000) = 0.7 % of the spread.
    spread = np.sqrt(np.trace(covariance))
    np.testing.assert_allclose(vectors.mean(axis=0), rows.mean(axis=0), atol=0.05 * spread)
    np.testing.assert_allclose(np.cov(vectors.T), covariance, atol=0.05 * spread**2)


def test_initialise_gives_the_map_exactly_the_moments_of_the_points():
    quantizer = make_quantizer("simvq", moment_batches=2)
    batches = [torch.randn(2, 4, 3, 5) * 3 + 2 for _ in range(2)]
    quantizer.initialise(batches)
    rows = np.concatenate([to_rows(z_e) for z_e in batches])
    W = quantizer.transform.weight.detach().double().numpy()
    # float32 sums of 60 numbers up to ten.
    np.testing.assert_allclose(W @ W.T, np.cov(rows.T, bias=True), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(quantizer.transform.bias.detach(), rows.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    "points", [torch.ones(1, 4, 3, 3), torch.randn(1, 4, 1, 2)], ids=["equal", "two"]
)
def test_initialise_from_points_without_spread_in_some_direction_is_finite(points):
    quantizer = make_quantizer("simvq", moment_batches=1)
    quantizer.initialise([points])
    assert all(parameter.isfinite().all() for parameter in quantizer.parameters())


def test_initialise_without_any_batch_is_refused():
    quantizer = make_quantizer("simvq", moment_batches=2)
    with pytest.raises(ValueError, match="at least one batch is required to initialise a codebook"):
        quantizer.initialise([])
