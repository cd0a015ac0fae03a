"""Which term's gradient reaches which tensor, for every kind (VQ-VAE paper, equation 3)."""

import numpy as np
import pytest
import torch
from tiny_vqvae import (
    CASES,
    LEARNED,
    make_model,
    make_quantizer,
    product_config,
    quantizer_config,
    random_images,
    residual_config,
    to_rows,
)

from stage1_vqvae.quantizers.build import build_quantizer

NETWORKS = {"encoder", "decoder"}
MAP = {"transform.weight", "transform.bias"}
LOGITS = {"to_logits.weight", "to_logits.bias"}
# By kind and term: networks by name, tensors of the quantizer one by one.
ROUTES = {
    "ema": {"reconstruction": NETWORKS, "commitment": {"encoder"}, "entropy": {"encoder"}},
    "gradient": {
        "reconstruction": NETWORKS,
        "commitment": {"encoder"},
        "codebook": {"codebook"},
        "entropy": {"encoder", "codebook"},
    },
    "simvq": {
        "reconstruction": NETWORKS,
        "commitment": {"encoder"},
        "codebook": MAP,
        "entropy": {"encoder"} | MAP,
    },
    "finite_scalar": {"reconstruction": NETWORKS},
    "lookup_free": {
        "reconstruction": NETWORKS,
        "commitment": {"encoder"},
        "entropy": {"encoder"},
    },
    "gumbel": {
        "reconstruction": NETWORKS | LOGITS | {"codebook"},
        "kl": {"encoder"} | LOGITS,
        "diversity": {"encoder"} | LOGITS,
    },
    "stochastic": {
        "reconstruction": NETWORKS | {"codebook", "log_variance"},
        "distance": {"encoder", "codebook", "log_variance"},
        "entropy": {"encoder", "codebook", "log_variance"},
    },
    "index_backprop": {
        "reconstruction": NETWORKS | {"codebook"},
        "index": {"encoder", "codebook"},
        "commitment": {"encoder"},
        "codebook": {"codebook"},
        "entropy": {"encoder", "codebook"},
    },
}
OPTIONS = {kind: {"entropy_weight": 0.1} for kind in (*LEARNED, "simvq")}


def reached_by(term, config):
    """Names of what a term's gradient reaches; of the quantizer, the parts' own names."""
    model = make_model((1, 8, 8), quantizer=config).train()
    output = model(random_images(2, 1, 8, 8))
    terms = {"reconstruction": output.reconstruction_loss}
    (terms | output.quantized.losses)[term].backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    return {
        name.removeprefix("quantizer.") if name.startswith("quantizer") else name.partition(".")[0]
        for name in moved
    }


def test_every_term_of_every_kind_has_a_route():
    for kind, routes in ROUTES.items():
        quantizer = make_quantizer(kind, **OPTIONS.get(kind, {}))
        found = quantizer(torch.randn(2, 4, 3, 3)).losses
        assert {"reconstruction", *found} == routes.keys()


def routes_of(kind, config):
    """What the gradient of each term of the kind reaches in a model with `config`."""
    return {term: reached_by(term, config) for term in ROUTES[kind]}


@pytest.mark.parametrize("kind", ROUTES)
def test_gradient_of_a_term_reaches_only_its_tensors(kind):
    assert routes_of(kind, quantizer_config(kind, **OPTIONS.get(kind, {}))) == ROUTES[kind]


def of_every_part(kind, parts):
    """Routes to each of the parts of a quantizer; networks as they are."""
    return {
        term: (names & NETWORKS) | {f"{part}.{name}" for name in names - NETWORKS for part in parts}
        for term, names in ROUTES[kind].items()
    }


@pytest.mark.parametrize("kind", [kind for kind in ROUTES if kind != "gumbel"])
def test_gradient_of_a_residual_term_reaches_those_of_every_stage(kind):
    config = residual_config(kind, **OPTIONS.get(kind, {}))
    expected = of_every_part(kind, ["stages.0", "stages.1", "stages.2"])
    assert routes_of(kind, config) == expected


@pytest.mark.parametrize("kind", ROUTES)
def test_gradient_of_a_product_term_reaches_those_of_every_group(kind):
    config = product_config(kind, **OPTIONS.get(kind, {}))
    assert routes_of(kind, config) == of_every_part(kind, ["groups.0", "groups.1"])


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_gradient_of_the_reconstruction_reaches_every_parameter_of(part):
    model = make_model((1, 8, 8)).train()
    model(random_images(2, 1, 8, 8)).reconstruction_loss.backward()
    module = getattr(model, part)
    assert all(parameter.grad.any() for parameter in module.parameters())


@pytest.mark.parametrize("kind", [*LEARNED, "simvq", "lookup_free"])
def test_gradient_of_z_q_reaches_z_e_unchanged(kind):
    quantizer = make_quantizer(kind)
    z_e, weights = torch.randn(2, 4, 3, 5, requires_grad=True), torch.randn(2, 4, 3, 5)
    (quantizer(z_e).z_q * weights).sum().backward()
    assert torch.equal(z_e.grad, weights)


@pytest.mark.parametrize("kind", [*LEARNED, "simvq"])
def test_gradient_of_cosine_z_q_reaches_z_e_through_the_scaling(kind):
    quantizer = make_quantizer(kind, cosine=True)
    z_e, weights = torch.randn(2, 4, 3, 5, requires_grad=True), torch.randn(2, 4, 3, 5)
    (quantizer(z_e).z_q * weights).sum().backward()
    z, w = to_rows(z_e), to_rows(weights)
    length = np.linalg.norm(z, axis=1, keepdims=True)
    unit = z / length
    expected = (w - unit * (unit * w).sum(axis=1, keepdims=True)) / length
    np.testing.assert_allclose(to_rows(z_e.grad), expected, rtol=1e-4, atol=1e-5)  # float32


def test_gradient_of_the_codebook_term_moves_only_chosen_codes():
    quantizer = make_quantizer("gradient", codebook_size=3, codebook_dim=1)
    quantizer.codebook.data = torch.tensor([[0.0], [10.0], [20.0]])
    quantizer(torch.tensor([1.0, 19.0]).view(2, 1, 1, 1)).losses["codebook"].backward()
    # 2 (e - z) / N with N = 2 points.
    assert quantizer.codebook.grad.tolist() == [[-1.0], [0.0], [1.0]]


def test_ema_codebook_is_no_parameter():
    quantizer = make_quantizer("ema")
    assert list(quantizer.parameters()) == []
    assert not quantizer.codebook.requires_grad


@pytest.mark.parametrize("name", ["ema-all", "gradient-restarts", "index_backprop", "residual-ema"])
def test_moving_state_keeps_no_gradient_history_in_training(name):
    quantizer = build_quantizer(CASES[name]).train()
    quantizer(torch.randn(2, 4, 3, 5, requires_grad=True))
    assert not any(buffer.requires_grad for buffer in quantizer.buffers())


@pytest.mark.parametrize("kind", ["gradient", "simvq", "gumbel", "stochastic", "index_backprop"])
def test_codes_that_learn_by_gradient_never_decay(kind):
    # AdamW would pull them to the origin, where no loss says that they belong.
    quantizer = make_quantizer(kind)
    marked = {n for n, p in quantizer.named_parameters() if getattr(p, "no_weight_decay", False)}
    expected = {
        n for n, _ in quantizer.named_parameters() if n.endswith(("codebook", "transform.weight"))
    }
    assert marked == expected
    assert marked
