"""Attention: both paths against numpy and each other, and one cached position at a time."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stage2_prior import attention
from stage2_prior.attention import CausalSelfAttention, causal_attention


def heads(length, batch=2, num_heads=3, head_dim=4):
    generator = torch.Generator().manual_seed(0)
    shape = (3, batch, num_heads, length, head_dim)
    return tuple(2 * torch.randn(shape, generator=generator))


def attention_in_numpy(query, key, value):
    """One position after another, each over itself and those before."""
    query, key, value = (x.double().numpy() for x in (query, key, value))
    result = np.zeros_like(value)
    for b, n, t in np.ndindex(query.shape[:3]):
        scores = key[b, n, : t + 1] @ query[b, n, t] / np.sqrt(query.shape[3])
        weights = np.exp(scores - scores.max())
        result[b, n, t] = weights @ value[b, n, : t + 1] / weights.sum()
    return result


def forbid(*_, **__):
    raise AssertionError("this path must not be taken")


@pytest.mark.parametrize("length", [1, 2, 9])
def test_attention_equals_numpy(length):
    expected = attention_in_numpy(*heads(length))
    actual = causal_attention(*heads(length)).numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)  # float32 values of order 5


@pytest.mark.parametrize("length", [1, 9, 64])
def test_explicit_attention_equals_the_fused_one(length, monkeypatch):
    expected = F.scaled_dot_product_attention(*heads(length), is_causal=True)
    monkeypatch.setattr(F, "scaled_dot_product_attention", forbid)
    torch.testing.assert_close(causal_attention(*heads(length)), expected, rtol=0, atol=1e-5)


def test_long_sequences_take_the_fused_path_with_equal_numbers(monkeypatch):
    explicit = causal_attention(*heads(9))
    monkeypatch.setattr(attention, "_EXPLICIT_LENGTH", 8)
    monkeypatch.setattr(torch.Tensor, "softmax", forbid)  # which only the explicit path calls
    torch.testing.assert_close(causal_attention(*heads(9)), explicit, rtol=0, atol=1e-5)


def test_sequences_up_to_the_limit_take_the_explicit_path(monkeypatch):
    monkeypatch.setattr(attention, "_EXPLICIT_LENGTH", 9)
    monkeypatch.setattr(F, "scaled_dot_product_attention", forbid)
    assert causal_attention(*heads(9)).shape == (2, 3, 9, 4)


def test_attention_weights_are_float32_for_bfloat16_input():
    # Scores of order 100 whose differences bfloat16 weights could not tell apart.
    query, key, value = (x.bfloat16() for x in heads(9))
    expected = attention_in_numpy(query, key, value)
    actual = causal_attention(query, key, value).double().numpy()
    # bfloat16 keeps 8 bits of the scores, of the weights and of the result.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=0.15)


def test_step_by_step_equals_the_whole_sequence():
    layer = CausalSelfAttention(width=12, num_heads=3)
    x = torch.randn(2, 7, 12)
    cache = layer.new_cache(2, 7)
    steps = [layer.step(x[:, t : t + 1], t, cache) for t in range(7)]
    torch.testing.assert_close(torch.cat(steps, dim=1), layer(x), rtol=0, atol=1e-6)


def test_cache_keeps_its_buffers():
    layer = CausalSelfAttention(width=12, num_heads=3)
    cache = layer.new_cache(2, 7)
    keys = cache.keys
    with torch.no_grad():
        for t in range(7):
            layer.step(torch.randn(2, 1, 12), t, cache)
    assert cache.keys is keys
    assert keys.shape == (2, 3, 7, 4)
    assert keys.abs().sum(dim=3).all()  # every position was written
