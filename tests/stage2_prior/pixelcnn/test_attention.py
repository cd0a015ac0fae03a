"""Attention of a PixelCNN: where it is, and its block against numpy."""

import math

import numpy as np
import pytest
import torch
from references import softmax
from tiny_priors import SQUARE, make_prior

from stage2_prior.grids import GridSpec
from stage2_prior.pixelcnn.attention import CausalAttentionBlock


@pytest.mark.parametrize(
    ("num_layers", "every", "after"),
    [(3, 0, []), (3, 1, ["0", "1", "2"]), (5, 2, ["1", "3"]), (4, 4, ["3"])],
)
def test_attention_follows_every_nth_layer(num_layers, every, after):
    prior = make_prior("pixelcnn", SQUARE, num_layers=num_layers, attention_every=every)
    assert list(prior.attention_blocks) == after


def attention_in_numpy(block, x):
    """One position after another, each over itself and those before: float64 (h * w, E)."""
    state = {name: p.detach().double().numpy() for name, p in block.named_parameters()}
    width, (height, columns) = x.shape[0], x.shape[1:]
    head = width // block.num_heads
    positions = x.double().numpy().reshape(width, -1).T
    centred = positions - positions.mean(axis=1, keepdims=True)
    normed = centred / np.sqrt(positions.var(axis=1, keepdims=True) + block.norm.eps)
    normed = normed * state["norm.weight"] + state["norm.bias"]
    for position in range(height * columns):
        row, column = divmod(position, columns)
        normed[position] += state["row_embedding.weight"][row]
        normed[position] += state["column_embedding.weight"][column]
    query, key, value = np.split(normed @ state["to_qkv.weight"].T, 3, axis=1)
    merged = np.zeros_like(positions)
    for position in range(len(positions)):
        for start in range(0, width, head):
            part = slice(start, start + head)
            scores = key[: position + 1, part] @ query[position, part] / math.sqrt(head)
            merged[position, part] = softmax(scores) @ value[: position + 1, part]
    return merged @ state["project.weight"].T + state["project.bias"]


@torch.no_grad()
@pytest.mark.parametrize("num_heads", [1, 2, 6])
def test_attention_block_equals_numpy(num_heads):
    block = CausalAttentionBlock(6, num_heads, GridSpec(3, 4, 1))
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
def test_attention_position_by_position_equals_the_whole_grid():
    block, x = CausalAttentionBlock(6, 2, GridSpec(3, 4, 1)), torch.randn(5, 6, 3, 4)
    cache = block.new_cache(5)
    positions = [block.step(x[:, :, p // 4, p % 4], p, cache) for p in range(12)]
    actual = torch.stack(positions, dim=-1).view(5, 6, 3, 4)
    torch.testing.assert_close(actual, block(x), rtol=0, atol=1e-6)
