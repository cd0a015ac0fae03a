"""The memory of keys and values serves one batch after the other, and holds nothing over."""

import pytest
import torch
from tiny_priors import make_prior

from stage2_prior import GridSpec, SamplingSettings
from stage2_prior.key_value_cache import CacheMemory

GRIDS = (GridSpec(5, 4, 7),)
CPU = torch.device("cpu")


def addresses(memory):
    return [part.data_ptr() for part in memory]


@pytest.mark.parametrize("compile_", ["off", "on"])
def test_what_the_memory_held_does_not_matter(compile_, monkeypatch):
    from stage2_prior import decoding_step, transformer_sampler

    monkeypatch.setattr(
        transformer_sampler, "compiled_decoding_step", lambda: decoding_step.decoding_step
    )
    prior, settings = make_prior("transformer", GRIDS), SamplingSettings(compile=compile_)
    (expected,) = prior.sample(8, settings=settings)
    (memory,) = prior.cache_memory._kept
    for part in memory:
        part.fill_(float("nan"))
    (actual,) = prior.sample(8, settings=settings)
    assert torch.equal(actual, expected)
    assert addresses(prior.cache_memory._kept[0]) == addresses(memory)  # it was used


def test_caches_in_use_at_a_time_share_nothing():
    memory = CacheMemory()
    first, second = (memory.take(2, 16, torch.float32, CPU) for _ in range(2))
    assert len(set(addresses(first + second))) == 4
    memory.give_back(first)
    assert addresses(memory.take(2, 16, torch.float32, CPU)) == addresses(first)
    third = memory.take(2, 16, torch.float32, CPU)
    assert not set(addresses(third)) & set(addresses(first + second))


@pytest.mark.parametrize(
    ("layers", "size", "dtype"),
    [(1, 16, torch.float32), (2, 17, torch.float32), (2, 16, torch.bfloat16)],
)
def test_memory_of_another_size_or_type_is_fresh(layers, size, dtype):
    memory = CacheMemory()
    memory.give_back(memory.take(2, 16, torch.float32, CPU))
    taken = memory.take(layers, size, dtype, CPU)
    assert [(len(part), part.dtype) for part in taken] == [(size, dtype)] * layers


def test_large_memory_is_not_kept():
    memory = CacheMemory()
    memory.give_back([torch.empty(64 << 20, dtype=torch.uint8)])
    assert len(memory._kept) == 1
    memory = CacheMemory()
    memory.give_back([torch.empty((64 << 20) + 1, dtype=torch.uint8)])
    assert not memory._kept


def test_memory_of_one_cache_is_kept():
    prior = make_prior("transformer", GRIDS)
    prior.sample(40, batch_size=16)  # three batches, the last one smaller
    assert len(prior.cache_memory._kept) == 1
