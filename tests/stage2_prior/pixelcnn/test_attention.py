"""Attention and context of a PixelCNN: their configs, parameters and pieces, and what is saved."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from pixelcnn_variants import (
    ATTENTION,
    EQUAL,
    ONE,
    VARIANTS,
    Variant,
    make_pixelcnn,
    random_context,
)
from references import softmax
from sealing import edit_record
from tiny_priors import as_grids, random_labels, random_sequence

from stage2_prior import CodePrior, GridSpec, PixelCNNConfig, build_prior
from stage2_prior.pixelcnn.attention import CausalAttentionBlock
from stage2_prior.pixelcnn.context import ContextNetwork


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attention_every": -1}, "attention_every must be at least 0, got -1"),
        ({"attention_every": 11}, "attention_every must be at most num_layers (10), got 11"),
        ({"num_heads": 0}, "num_heads must be at least 1, got 0"),
        (
            {"attention_every": 2, "num_heads": 5},
            "width must be a multiple of num_heads (5), got 96",
        ),
    ],
    ids=str,
)
def test_config_refuses_values_out_of_range(values, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PixelCNNConfig(**values)


def test_heads_need_not_divide_the_width_where_there_is_no_attention():
    assert PixelCNNConfig(width=7, num_heads=4).width == 7


def test_fresh_weights_do_not_depend_on_options_that_are_off():
    # What training with a seed gave before the options were there, it gives now.
    torch.manual_seed(7)
    first = build_prior(PixelCNNConfig(num_layers=2, width=4, kernel_size=3), ONE)
    torch.manual_seed(7)
    embedding = torch.nn.Embedding(ONE[0].codebook_size, 4)
    vertical = torch.nn.Conv2d(4, 8, (1, 3))
    assert torch.equal(first.code_embeddings[0].weight, embedding.weight)
    assert torch.equal(first.layers[0].vertical.conv.weight, vertical.weight)


@pytest.mark.parametrize(
    ("num_layers", "every", "after"),
    [(3, 0, []), (3, 1, ["0", "1", "2"]), (5, 2, ["1", "3"]), (4, 4, ["3"])],
)
def test_attention_follows_every_nth_layer(num_layers, every, after):
    options = {"num_layers": num_layers, "attention_every": every, "num_heads": 2}
    assert list(make_pixelcnn(Variant(ONE, options=options)).attention_blocks) == after


@pytest.mark.parametrize("name", ["attention", "context", "context_and_attention_and_equal_grids"])
def test_saved_prior_is_loaded_with_its_options(tmp_path, name):
    variant = VARIANTS[name]
    prior = make_pixelcnn(variant, 3)
    prior.save_pretrained(tmp_path / "prior")
    loaded = CodePrior.from_pretrained(tmp_path / "prior")
    assert (loaded.config, loaded.context_grids) == (prior.config, variant.context_grids)
    codes = as_grids(random_sequence(variant.grids, 4), variant.grids)
    context = random_context(variant, 4)
    context = None if context is None else as_grids(context, variant.context_grids)
    labels = random_labels(3, 4)
    expected = prior.log_prob(codes, labels, context)
    assert torch.equal(loaded.log_prob(codes, labels, context), expected)


def test_saved_prior_with_attention_refuses_weights_without(tmp_path):
    make_pixelcnn(VARIANTS["plain"]).save_pretrained(tmp_path / "prior")
    with_attention = dataclasses.asdict(make_pixelcnn(VARIANTS["attention"]).config)
    edit_record(tmp_path / "prior" / "config.json", lambda c: c.update(model=with_attention))
    with pytest.raises(ValueError, match=r"does not fit config\.json: attention_blocks\.0\."):
        CodePrior.from_pretrained(tmp_path / "prior")


@pytest.mark.parametrize("name", ["attention", "context", "context_and_attention_and_equal_grids"])
def test_every_weight_that_is_used_gets_a_gradient(name):
    variant = VARIANTS[name]
    prior = make_pixelcnn(variant, 3)
    sequence, context = random_sequence(variant.grids, 32), random_context(variant, 32)
    prior.nll(sequence, torch.arange(32) % 4, context).mean().backward()
    without = {name for name, p in prior.named_parameters() if p.grad is None or not p.grad.any()}
    # What only a next layer would read; attention after the last layer reads the horizontal output.
    unused = {"layers.2.vertical_gate.label_bias.weight"}
    if not prior.config.attention_every:
        unused |= {"layers.2.horizontal_out.weight", "layers.2.horizontal_out.bias"}
    assert without == unused


def attention_in_numpy(block, x):
    """One place after another, each over itself and those before: float64 (h * w, E)."""
    state = {name: p.detach().double().numpy() for name, p in block.named_parameters()}
    width, (height, columns) = x.shape[0], x.shape[1:]
    head = width // block.num_heads
    places = x.double().numpy().reshape(width, -1).T
    centred = places - places.mean(axis=1, keepdims=True)
    normed = centred / np.sqrt(places.var(axis=1, keepdims=True) + block.norm.eps)
    normed = normed * state["norm.weight"] + state["norm.bias"]
    for place in range(height * columns):
        row, column = divmod(place, columns)
        normed[place] += state["row_embedding.weight"][row]
        normed[place] += state["column_embedding.weight"][column]
    query, key, value = np.split(normed @ state["to_qkv.weight"].T, 3, axis=1)
    merged = np.zeros_like(places)
    for place in range(len(places)):
        for start in range(0, width, head):
            part = slice(start, start + head)
            scores = key[: place + 1, part] @ query[place, part] / math.sqrt(head)
            merged[place, part] = softmax(scores) @ value[: place + 1, part]
    return merged @ state["project.weight"].T + state["project.bias"]


@torch.no_grad()
@pytest.mark.parametrize("num_heads", [1, 2, 6])
def test_attention_block_equals_numpy(num_heads):
    block = CausalAttentionBlock(6, num_heads, 3, 4)
    for parameter in block.parameters():
        parameter.add_(0.5 * torch.randn_like(parameter))
    x = torch.randn(2, 6, 3, 4)
    actual = block(x).permute(0, 2, 3, 1).reshape(2, 12, 6).numpy()
    for image in range(2):
        # Float32 values of order 5.
        np.testing.assert_allclose(
            actual[image], attention_in_numpy(block, x[image]), rtol=0, atol=2e-5
        )


@torch.no_grad()
def test_attention_place_by_place_equals_the_whole_grid():
    block, x = CausalAttentionBlock(6, 2, 3, 4), torch.randn(5, 6, 3, 4)
    cache = block.new_cache(5)
    places = [block.step(x[:, :, p // 4, p % 4], p, cache) for p in range(12)]
    actual = torch.stack(places, dim=-1).view(5, 6, 3, 4)
    torch.testing.assert_close(actual, block(x), rtol=0, atol=1e-6)


def context_embedding(height, width, grid):
    """What the two convolutions are given for codes 0, 1, 2, ... embedded as themselves."""
    network = ContextNetwork((GridSpec(height, width, height * width),), grid, 1, 3)
    with torch.no_grad():
        network.embeddings[0].weight.copy_(torch.arange(float(height * width))[:, None])
        for parameter in (*network.conv_out.parameters(),):
            parameter.zero_()
        return network(torch.arange(height * width)[None])[0, 0]


def test_coarser_context_is_repeated_over_the_places_it_covers():
    actual = context_embedding(2, 3, GridSpec(4, 6, 2))
    expected = [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2
    assert actual.tolist() == expected


def test_finer_context_is_averaged_so_that_no_code_is_skipped():
    # Codes of 4x6 in cells of 2x2: the mean of a cell is that of its corners.
    assert context_embedding(4, 6, GridSpec(2, 3, 2)).tolist() == [
        [3.5, 5.5, 7.5],
        [15.5, 17.5, 19.5],
    ]


def test_context_of_another_grid_is_summed_in():
    variant = Variant(EQUAL, (GridSpec(3, 3, 4), GridSpec(3, 3, 4)), ATTENTION)
    network = make_pixelcnn(variant).context_network
    first, second = torch.arange(9)[None] % 4, torch.arange(9)[None] % 3
    swapped = network(torch.cat([second, first], dim=1))
    assert not torch.allclose(network(torch.cat([first, second], dim=1)), swapped, atol=1e-2)
