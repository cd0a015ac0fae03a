"""Attention: both paths against numpy and each other."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stage2_prior import attention
from stage2_prior.attention import causal_attention


def heads(length, batch=2, num_heads=3, head_dim=4):
    generator = torch.Generator().manual_seed(0)
    shape = (3, batch, num_heads, length, head_dim)
    return tuple(2 * torch.randn(shape, generator=generator))


def attention_in_numpy(query, key, value, prefix=0):
    """One position after another, each over the prefix, itself and those before."""
    query, key, value = (x.double().numpy() for x in (query, key, value))
    result = np.zeros_like(value)
    for b, n, t in np.ndindex(query.shape[:3]):
        seen = max(t + 1, prefix)
        scores = key[b, n, :seen] @ query[b, n, t] / np.sqrt(query.shape[3])
        weights = np.exp(scores - scores.max())
        result[b, n, t] = weights @ value[b, n, :seen] / weights.sum()
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


@pytest.mark.parametrize("explicit_length", [256, 1])
@pytest.mark.parametrize("prefix", [1, 4, 9])
def test_prefix_is_seen_by_all_on_both_paths(prefix, explicit_length, monkeypatch):
    monkeypatch.setattr(attention, "_EXPLICIT_LENGTH", explicit_length)
    expected = attention_in_numpy(*heads(9), prefix)
    actual = causal_attention(*heads(9), prefix).numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)  # float32 values of order 5
