"""The benchmark of sampling does the work it says it does; how long it takes is not tested."""

import sys
from dataclasses import replace

import torch

from pipelines.benchmarks import priors as benchmark_priors
from pipelines.benchmarks.priors import (
    benchmark_steps,
    benchmark_transformer_sampling,
    gpt2_generate,
)
from stage2_prior.config import TransformerConfig
from stage2_prior.grids import GridSpec
from stage2_prior.sampling.settings import SamplingSettings
from stage2_prior.transformer.prior import TransformerPrior

TINY = TransformerConfig(num_layers=2, width=8, num_heads=2)
GRID = GridSpec(2, 3, 5)


def count_products(monkeypatch):
    """Sizes (rows, inputs, outputs) of every product that is asked for."""
    sizes, mm = [], torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b: sizes.append((*a.shape, b.shape[1])) or mm(a, b))
    return sizes


def test_matrix_products_are_those_of_the_network(monkeypatch):
    sizes = count_products(monkeypatch)
    benchmark_priors.matrix_products(TINY, GRID, 4, "float32")()
    block = [(4, 8, 24), (4, 8, 8), (4, 8, 32), (4, 32, 8)]
    assert sizes == 6 * (block + block + [(4, 8, 5)])


def test_times_are_of_samples(monkeypatch):
    sampled, sample = [], TransformerPrior.sample

    def watched(prior, count, *rest, **options):
        sampled.append(count)
        return sample(prior, count, *rest, **options)

    monkeypatch.setattr(TransformerPrior, "sample", watched)
    monkeypatch.setitem(sys.modules, "transformers", None)
    ways = [SamplingSettings(precision=precision) for precision in ("float32", "bfloat16")]
    times = benchmark_transformer_sampling(
        ways, num_samples=16, grid=GRID, config=TINY, repetitions=2
    )
    # Each of two ways: a round that does not count and two that do, of two calls each.
    assert sampled == 12 * [16]
    assert list(times.samplers) == ways
    assert times.matrix_products.keys() == {"float32", "bfloat16"}
    assert min(*times.samplers.values(), *times.matrix_products.values()) > 0
    assert times.gpt2 is None


def test_steps_are_timed_in_both_orders(monkeypatch):
    sampled, sample = [], TransformerPrior.sample

    def watched(prior, count, labels, settings):
        sampled.append((count, settings.num_steps, settings.step_order))
        return sample(prior, count, labels, settings)

    monkeypatch.setattr(TransformerPrior, "sample", watched)
    config = replace(TINY, any_order=True)
    seconds = benchmark_steps((None, 2), num_samples=16, grid=GRID, config=config, repetitions=1)
    expected = [(16, None, "random"), (16, 2, "random"), (16, 2, "confidence")]
    assert sampled == 2 * [call for call in expected for _ in range(2)]  # a round does not count
    assert [(way.num_steps, way.step_order) for way in seconds] == [
        (None, "random"),
        (2, "random"),
        (2, "confidence"),
    ]
    assert min(seconds.values()) > 0


def test_gpt2_is_left_out_where_transformers_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert gpt2_generate(TINY, GRID, 2) is None
