"""Causal attention: both paths against numpy."""

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("explicit_length", [256, 0], ids=["explicit", "fused"])
@pytest.mark.parametrize(("length", "prefix"), [(1, 0), (9, 0), (9, 1), (9, 4), (9, 9)])
def test_attention_equals_numpy_on_both_paths(length, prefix, explicit_length, monkeypatch):
    monkeypatch.setattr(attention, "_EXPLICIT_LENGTH", explicit_length)
    expected = attention_in_numpy(*heads(length), prefix)
    actual = causal_attention(*heads(length), prefix).numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)  # float32 values of order 5


def test_attention_weights_are_float32_for_bfloat16_input():
    # Scores of order 100 whose differences bfloat16 weights could not tell apart.
    query, key, value = (x.bfloat16() for x in heads(9))
    expected = attention_in_numpy(query, key, value)
    actual = causal_attention(query, key, value).double().numpy()
    # bfloat16 keeps 8 bits of the scores, of the weights and of the result.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=0.15)


def test_attention_of_float64_is_float64():
    query, key, value = (x.double() for x in heads(9))
    expected = attention_in_numpy(query, key, value)
    np.testing.assert_allclose(causal_attention(query, key, value), expected, rtol=0, atol=1e-13)
