"""Slow and independent computations in numpy and plain Python that the tests compare with."""

import numpy as np


def softmax(logits):
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def transformed_probabilities(logits, temperature=1.0, top_k=None, top_p=None):
    """Probabilities of one row of logits (K,) after temperature, then top-k, then top-p."""
    logits = np.asarray(logits, dtype=np.float64)
    if temperature == 0:
        return np.eye(len(logits))[np.argmax(logits)]
    probabilities = softmax(logits / temperature)
    ranked = sorted(range(len(logits)), key=lambda code: -probabilities[code])
    if top_k is not None:
        smallest = logits[ranked[min(top_k, len(ranked)) - 1]]
        probabilities = np.where(logits >= smallest, probabilities, 0)
        probabilities /= probabilities.sum()
    if top_p is not None:
        mass, kept = 0.0, []
        for code in ranked:
            kept.append(code)
            mass += probabilities[code]
            if mass >= top_p:
                break
        probabilities = np.array(
            [p if code in kept else 0.0 for code, p in enumerate(probabilities)]
        )
        probabilities /= probabilities.sum()
    return probabilities


def chi_square_deviation(counts, probabilities):
    """How many standard deviations the chi-square statistic of the counts lies above its mean.

    Wilson and Hilferty 1931: the cube root of chi-square / df is nearly normal with mean
    1 - 2 / (9 df) and variance 2 / (9 df). Bins of fewer than 5 expected counts are pooled.
    """
    expected = counts.sum() * probabilities
    assert not counts[probabilities == 0].any(), "something impossible was drawn"
    order = np.argsort(expected)[::-1]
    pooled = []
    for number, wanted in zip(counts[order], expected[order], strict=True):
        if pooled and pooled[-1][1] < 5:
            pooled[-1] = (pooled[-1][0] + number, pooled[-1][1] + wanted)
        else:
            pooled.append((number, wanted))
    if len(pooled) > 1 and pooled[-1][1] < 5:
        number, wanted = pooled.pop()
        pooled[-1] = (pooled[-1][0] + number, pooled[-1][1] + wanted)
    degrees = len(pooled) - 1
    statistic = sum((number - wanted) ** 2 / wanted for number, wanted in pooled)
    mean, deviation = 1 - 2 / (9 * degrees), np.sqrt(2 / (9 * degrees))
    return (np.cbrt(statistic / degrees) - mean) / deviation


def splitmix_uniform(seed, sample, position):
    """The number that `addressed_uniform` documents, in Python's unbounded integers."""
    state = 0
    for word in (seed, sample, position):
        state = _mix(((state ^ word) + 0x9E3779B97F4A7C15) % 2**64)
    return (state // 2**11) / 2**53


def _mix(x):
    x = (x ^ (x // 2**30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x // 2**27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x // 2**31)
