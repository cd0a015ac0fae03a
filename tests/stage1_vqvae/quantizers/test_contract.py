"""The contract of `quantizers.base`, for every kind and every switch."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from tiny_vqvae import (
    CASES,
    REPRESENTATIVE,
    base_of,
    changed,
    grids_of,
    make_quantizer,
    state_of,
    to_rows,
)

from stage1_vqvae.quantizers import search
from stage1_vqvae.quantizers.build import build_quantizer
from stage1_vqvae.quantizers.config import (
    QUANTIZER_CONFIGS,
    ProductConfig,
    ResidualConfig,
    kinds_with,
)

pytestmark = pytest.mark.usefixtures("every_device")

SWITCHES = (
    "cosine",
    "rotation_trick",
    "entropy_weight",
    "online_clustering",
    "kmeans_batches",
    "moment_batches",
    "restart_threshold",
    "quantizer_dropout",
    "spherical",
)
SOFT = ("gumbel", "stochastic", "index_backprop")
"""Kinds whose z_q moves z_e by the softness of the choice."""


def takes_the_nearest(config):
    """Whether evaluation chooses the code vector nearest to z in the space of the codes."""
    base = base_of(config)
    by_likelihood = base.kind == "gumbel" or (base.kind == "index_backprop" and not base.cosine)
    return not by_likelihood and not isinstance(config, ResidualConfig)


def compares_directions(config):
    base = base_of(config)
    return getattr(base, "cosine", False) or getattr(base, "spherical", False)


def fit_batches(config):
    base = base_of(config)
    return getattr(base, "kmeans_batches", 0) + getattr(base, "moment_batches", 0)


DIRECTIONS = ("simvq-cosine", "index_backprop-cosine", "lookup_free-spherical", "product-ema-all")


def names(choice):
    """Names of the representative cases, and of some of directions, that are of a choice."""
    return [name for name in (*REPRESENTATIVE, *DIRECTIONS) if choice(CASES[name])]


every_case = pytest.mark.parametrize("name", CASES)


@pytest.fixture(params=REPRESENTATIVE)
def name(request):
    return request.param


# Of what the base class does, whatever the kind.
few_cases = pytest.mark.parametrize(
    "name", ["ema-all", "simvq-moments", "finite_scalar", "gumbel", "residual-ema", "product-ema"]
)


@pytest.fixture
def config(name):
    return CASES[name]


@pytest.fixture
def quantizer(config):
    return build_quantizer(config)


@pytest.fixture
def z_e():
    return torch.randn(2, 4, 3, 5)


@pytest.fixture
def many_z_e():
    """Enough points for bfloat16 to err somewhere."""
    return torch.randn(8, 4, 16, 16)


def train_one_step(quantizer, z_e):
    """One step as the trainer takes it: the forward pass, then gradient descent."""
    output = quantizer.train()(z_e)
    loss = (output.z_q * torch.randn_like(z_e)).sum() + sum(output.losses.values())
    parameters = list(quantizer.parameters())
    if parameters:
        loss.backward()
        torch.optim.SGD(parameters, lr=0.1).step()


def all_codes(quantizer):
    """Every code of every grid at least once: (1, 1, largest K) per grid."""
    most = max(quantizer.codebook_sizes)
    return tuple((torch.arange(most) % size).view(1, 1, most) for size in quantizer.codebook_sizes)


def in_training_and_out(quantizer, z_e):
    """What forward gives in both modes, from the same state and the same draws."""
    torch.manual_seed(3)
    training = deepcopy(quantizer).train()(z_e)
    return training, quantizer.eval()(z_e)


# --- shapes, types, ranges


def test_every_kind_and_every_base_has_a_case():
    kinds = set(QUANTIZER_CONFIGS)
    assert {config.kind for config in CASES.values()} == kinds
    bases = {"residual": set(), "product": set()}
    for config in CASES.values():
        if config.kind in bases:
            bases[config.kind].add(config.base.kind)
    assert bases == {
        "residual": kinds - {"residual", "product", "gumbel"},
        "product": kinds - {"residual", "product"},
    }


def test_every_switch_of_every_kind_has_a_case():
    for switch in SWITCHES:
        for kind in kinds_with(switch):
            settings = {bool(getattr(c, switch)) for c in CASES.values() if c.kind == kind}
            assert settings == {True, False}, (kind, switch)


def test_every_kind_is_represented():
    assert {CASES[name].kind for name in REPRESENTATIVE} >= {"residual", "product"}
    assert {base_of(CASES[name]).kind for name in REPRESENTATIVE} | {"residual", "product"} == set(
        QUANTIZER_CONFIGS
    )


@pytest.mark.parametrize("shape", [(2, 4, 3, 5), (1, 4, 1, 1)])
def test_forward_returns_finite_float32_and_codes_in_range(quantizer, config, shape):
    z_e = torch.randn(shape)
    before = z_e.clone()
    output = quantizer.train(len(z_e) > 1)(z_e)
    assert torch.equal(z_e, before)
    assert output.z_q.shape == shape
    assert [grid.shape for grid in output.codes] == [(shape[0], *shape[2:])] * grids_of(config)
    assert {loss.shape for loss in output.losses.values()} <= {()}
    for values in (output.z_q, *output.losses.values()):
        assert values.dtype == torch.float32
        assert values.isfinite().all()
    for grid in output.codes:
        assert grid.dtype == torch.int64
        assert 0 <= grid.min() <= grid.max() < base_of(config).codebook_size


def test_sizes_are_those_of_the_config(quantizer, config):
    size, groups = base_of(config).codebook_size, getattr(config, "groups", 1)
    assert quantizer.codebook_sizes == (size,) * grids_of(config)
    assert quantizer.codebook_dim == config.codebook_dim == 4
    vectors = quantizer.code_vectors()
    assert [v.shape for v in vectors] == [(size, 4 // groups)] * grids_of(config)
    assert {v.dtype for v in vectors} == {torch.float32}


@pytest.mark.parametrize("name", [name for name in REPRESENTATIVE if "finite_scalar" not in name])
def test_training_and_evaluation_have_the_same_loss_terms(name, z_e):
    training, evaluation = in_training_and_out(build_quantizer(CASES[name]), z_e)
    assert training.losses.keys() == evaluation.losses.keys()
    assert training.losses


@few_cases
def test_an_empty_batch_gives_empty_results_and_changes_nothing(quantizer, config):
    before = state_of(quantizer.train())
    output = quantizer(torch.zeros(0, 4, 3, 5))
    for codes in (output.codes, quantizer.encode(torch.zeros(0, 4, 3, 5))):
        assert [grid.shape for grid in codes] == [(0, 3, 5)] * grids_of(config)
        assert {grid.dtype for grid in codes} == {torch.int64}
    for z_q in (output.z_q, quantizer.decode(output.codes)):
        assert z_q.shape == (0, 4, 3, 5)
        assert z_q.dtype == torch.float32
    assert not changed(before, state_of(quantizer))


@few_cases
def test_forward_takes_channels_last(quantizer, z_e):
    quantizer.eval()
    expected = quantizer(z_e)
    output = quantizer(z_e.to(memory_format=torch.channels_last))
    assert torch.equal(output.z_q, expected.z_q)
    assert all(map(torch.equal, output.codes, expected.codes))


# --- codes and vectors


@every_case
def test_forward_encode_and_decode_agree_exactly(name, many_z_e):
    quantizer = build_quantizer(CASES[name]).eval()
    output = quantizer(many_z_e)
    assert all(map(torch.equal, quantizer.encode(many_z_e), output.codes))
    assert torch.equal(output.z_q, quantizer.decode(output.codes))


# A moving average has moved when forward returns.
@pytest.mark.parametrize("name", names(lambda c: base_of(c).kind != "ema"))
def test_z_q_is_exactly_the_decoded_codes_in_training(name, z_e):
    quantizer = build_quantizer(CASES[name]).train()
    output = quantizer(z_e)
    assert torch.equal(output.z_q, quantizer.decode(output.codes))


@few_cases
def test_encode_depends_on_neither_the_blocks_of_the_search_nor_the_batch(
    quantizer, many_z_e, monkeypatch
):
    expected = quantizer.encode(many_z_e)
    monkeypatch.setattr(search, "_BLOCK_ENTRIES", 7 * 100)
    alone = [quantizer.encode(image[None]) for image in many_z_e]
    together = (torch.cat(grids) for grids in zip(*alone, strict=True))
    assert all(map(torch.equal, together, expected))


@few_cases
def test_encode_is_the_same_in_training_mode_and_changes_nothing(quantizer, z_e):
    forget_a_code(quantizer)
    before, expected = state_of(quantizer), quantizer.eval().encode(z_e)
    assert all(map(torch.equal, quantizer.train().encode(z_e), expected))
    assert not changed(before, state_of(quantizer))


@few_cases
def test_forward_quantizes_in_the_space_of_the_codes(quantizer, z_e):
    quantizer.eval()
    output = quantizer.quantize(quantizer.to_code_space(z_e))
    expected = quantizer(z_e)
    assert torch.equal(output.z_q, expected.z_q)
    assert all(map(torch.equal, output.codes, expected.codes))
    assert all(map(torch.equal, quantizer.assign(quantizer.to_code_space(z_e)), expected.codes))


@pytest.mark.parametrize("name", names(takes_the_nearest))
def test_decoded_codes_are_the_nearest_vectors(name, many_z_e):
    quantizer = build_quantizer(CASES[name]).eval()
    z = to_rows(quantizer.to_code_space(many_z_e))
    z_q = to_rows(quantizer.decode(quantizer.encode(many_z_e)))
    vectors = [v.detach().cpu().double().numpy() for v in quantizer.code_vectors()]
    groups = len(vectors)
    for i in range(groups):
        part = slice(i * 4 // groups, (i + 1) * 4 // groups)
        everywhere = ((z[:, None, part] - vectors[i][None]) ** 2).sum(axis=2).min(axis=1)
        chosen = ((z[:, part] - z_q[:, part]) ** 2).sum(axis=1)
        # float32 rounding of vectors near one.
        np.testing.assert_allclose(chosen, everywhere, atol=1e-5)


@pytest.mark.parametrize("name", names(takes_the_nearest))
def test_assign_and_encode_invert_decode(name):
    quantizer = build_quantizer(CASES[name])
    codes = all_codes(quantizer)
    decoded = quantizer.decode(codes)
    assert all(map(torch.equal, quantizer.assign(decoded), codes))
    if base_of(CASES[name]).kind != "finite_scalar":  # which takes z_e through a tanh first
        assert all(map(torch.equal, quantizer.encode(decoded), codes))


def test_code_vectors_are_what_codes_decode_to(quantizer, config):
    vectors = quantizer.code_vectors()
    codes = all_codes(quantizer)
    chosen = [v[grid[0, 0]].T[None, :, None] for v, grid in zip(vectors, codes, strict=True)]
    if isinstance(config, ProductConfig):
        expected = torch.cat(chosen, dim=1)
    else:
        expected = chosen[0]
        for refinement in chosen[1:]:
            expected = expected + refinement
    assert torch.equal(quantizer.decode(codes), expected)


@pytest.mark.parametrize("name", names(compares_directions))
def test_codes_of_directions_ignore_the_length_of_z_e(name, z_e):
    quantizer = build_quantizer(CASES[name])
    groups = len(quantizer.code_vectors()) if CASES[name].kind == "product" else 1
    # Each group has a length of its own; powers of two scale without rounding.
    lengths = 2.0 ** torch.randint(-5, 6, (2, groups, 3, 5))
    scaled = z_e * lengths.repeat_interleave(4 // groups, dim=1)
    assert all(map(torch.equal, quantizer.encode(scaled), quantizer.encode(z_e)))
    for vectors in quantizer.code_vectors():
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))


# --- precision


def test_forward_computes_in_float32_under_autocast(quantizer, many_z_e):
    outputs, states = [], []
    for enabled in (False, True):
        torch.manual_seed(3)
        copy = deepcopy(quantizer).train()
        with torch.autocast(many_z_e.device.type, torch.bfloat16, enabled=enabled):
            outputs.append(copy(many_z_e))
        states.append(state_of(copy))
    expected, output = outputs
    assert torch.equal(output.z_q, expected.z_q)
    assert all(map(torch.equal, output.codes, expected.codes))
    assert output.losses == expected.losses
    assert not changed(*states)


def test_encode_decode_and_code_vectors_are_float32_under_autocast(quantizer, many_z_e):
    codes = all_codes(quantizer)

    def results():
        return *quantizer.encode(many_z_e), quantizer.decode(codes), *quantizer.code_vectors()

    expected = results()
    with torch.autocast(many_z_e.device.type, torch.bfloat16):
        assert all(map(torch.equal, results(), expected))


@few_cases
def test_forward_of_bfloat16_z_e_is_that_of_its_float32_values(quantizer, many_z_e):
    output = quantizer.eval()(many_z_e.bfloat16())
    expected = quantizer(many_z_e.bfloat16().float())
    assert {output.z_q.dtype, *(loss.dtype for loss in output.losses.values())} <= {torch.float32}
    assert torch.equal(output.z_q, expected.z_q)
    assert all(map(torch.equal, output.codes, expected.codes))


@pytest.mark.parametrize("name", [name for name in REPRESENTATIVE if fit_batches(CASES[name])])
def test_initialise_computes_in_float32_under_autocast(name, many_z_e):
    states = []
    for enabled in (False, True):
        torch.manual_seed(3)
        quantizer = build_quantizer(CASES[name])
        with torch.autocast(many_z_e.device.type, torch.bfloat16, enabled=enabled):
            quantizer.initialise([many_z_e[:4], many_z_e[4:]])
        states.append(state_of(quantizer))
    assert not changed(*states)


BIG = {
    "ema": {"codebook_size": 1000},
    "gradient": {"codebook_size": 1000},
    "simvq": {"codebook_size": 1000},
    "lookup_free": {"codebook_size": 1024},
    "stochastic": {"codebook_size": 1000},
    "index_backprop": {"codebook_size": 1000, "cosine": True},
}


@pytest.mark.parametrize("kind", BIG)
def test_codes_above_256_never_round_to_another_under_autocast(kind):
    # bfloat16 holds no integers above 256 but every second, fourth, ...
    quantizer = make_quantizer(kind, **BIG[kind])
    codes = all_codes(quantizer)
    with torch.autocast(codes[0].device.type, torch.bfloat16):
        assert torch.equal(quantizer.encode(quantizer.decode(codes))[0], codes[0])


# --- state


def learned_by(name):
    """What training changes of a quantizer's state: all but a frozen codebook."""
    frozen = "codebook" if base_of(CASES[name]).kind == "simvq" else None
    state = build_quantizer(CASES[name]).state_dict()
    return {tensor for tensor in state if tensor.rpartition(".")[2] != frozen}


@every_case
def test_training_changes_everything_it_learns(name, z_e):
    quantizer = build_quantizer(CASES[name])
    before = state_of(quantizer)
    train_one_step(quantizer, z_e)
    assert changed(before, state_of(quantizer)) == learned_by(name)


@pytest.mark.parametrize("kind", ["finite_scalar", "lookup_free"])
def test_quantizers_without_a_codebook_have_nothing_to_save(kind):
    assert not make_quantizer(kind).state_dict()


def forget_a_code(quantizer):
    """Makes one code of each grid dead, where usage is counted."""
    for tensor_name, buffer in quantizer.named_buffers():
        if tensor_name.endswith("usage_average"):
            buffer[0] = 0.0


@every_case
def test_evaluation_changes_nothing_and_draws_nothing(name, z_e):
    quantizer = build_quantizer(CASES[name])
    forget_a_code(quantizer)
    before, stream = state_of(quantizer), torch.get_rng_state()
    quantizer.eval()(z_e)
    quantizer.decode(quantizer.encode(z_e))
    assert not changed(before, state_of(quantizer))
    assert torch.equal(torch.get_rng_state(), stream)


def test_state_is_float32_after_a_start_and_a_step(quantizer, z_e):
    # MPS knows no float64.
    quantizer.initialise([z_e, z_e])
    train_one_step(quantizer, z_e)
    tensors = [*quantizer.parameters(), *quantizer.buffers()]
    assert {tensor.dtype for tensor in tensors} <= {torch.float32, torch.int64}
    assert {name for name, t in quantizer.state_dict().items() if t.dtype != torch.float32} == set()


def test_initialise_consumes_exactly_its_batches_and_keeps_no_gradient_history(quantizer, config):
    assert quantizer.num_fit_batches == fit_batches(config)
    stream = iter([torch.randn(2, 4, 3, 3, requires_grad=True) for _ in range(5)])
    quantizer.initialise(stream)
    assert len(list(stream)) == 5 - fit_batches(config)
    assert not any(buffer.requires_grad for buffer in quantizer.buffers())
    assert all(parameter.is_leaf for parameter in quantizer.parameters())


@pytest.mark.parametrize("name", ["ema-all", "gradient-restarts", "gumbel", "stochastic-kmeans"])
def test_training_is_repeatable(quantizer, z_e):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        copy = deepcopy(quantizer)
        train_one_step(copy, z_e)
        states.append(state_of(copy))
    assert not changed(*states)


# --- gradients


@pytest.mark.parametrize(
    ("name", "fraction"), [*((name, 0.0) for name in CASES), *((name, 1.0) for name in SOFT)]
)
def test_gradient_reaches_z_e_and_every_parameter(name, fraction, z_e):
    quantizer = build_quantizer(CASES[name]).train()
    quantizer.set_progress(fraction)
    z_e.requires_grad_()
    output = quantizer(z_e)
    ((output.z_q * torch.randn_like(z_e)).sum() + sum(output.losses.values())).backward()
    tensors = dict(quantizer.named_parameters()) | {"z_e": z_e}
    assert {name for name, t in tensors.items() if t.grad is None or not t.grad.any()} == set()
    assert all(tensor.grad.isfinite().all() for tensor in tensors.values())


@pytest.mark.parametrize("name", [*REPRESENTATIVE, "ema", "gradient-rotation_trick", "simvq-all"])
def test_is_straight_through_where_the_gradient_of_z_q_is_copied(name, z_e):
    quantizer, base = build_quantizer(CASES[name]), base_of(CASES[name])
    copies = base.kind not in SOFT and not getattr(base, "rotation_trick", False)
    assert quantizer.is_straight_through is copies
    z = quantizer.to_code_space(z_e).detach().requires_grad_()
    weights = torch.randn_like(z)
    (quantizer.train().quantize(z).z_q * weights).sum().backward()
    # A residual quantizer adds and subtracts the copies of its later stages, in float32.
    assert torch.allclose(z.grad, weights, atol=1e-5) is copies


def test_the_loss_of_a_distant_outlier_has_a_finite_gradient(quantizer, z_e):
    # Probabilities of far codes round to 0, whose logarithm is not finite.
    z_e = (z_e * 1e3).requires_grad_()
    output = quantizer.train()(z_e)
    (output.z_q.sum() + sum(output.losses.values())).backward()
    assert z_e.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in quantizer.parameters())
