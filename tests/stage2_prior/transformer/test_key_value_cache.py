"""The memory of keys and values serves one batch after the other, and holds nothing over."""

import copy

import pytest
import torch
from tiny_priors import make_prior

from stage2_prior import GridSpec, SamplingSettings
from stage2_prior.transformer import key_value_cache
from stage2_prior.transformer.key_value_cache import CacheMemory, KeyValueCache

GRIDS = (GridSpec(5, 4, 7),)
CPU = torch.device("cpu")


def addresses(memory):
    return [part.data_ptr() for part in memory]


@pytest.mark.usefixtures("_uncompiled")
@pytest.mark.parametrize("compile_", ["off", "on"])
def test_what_the_memory_held_does_not_matter(compile_):
    prior, settings = make_prior("transformer", GRIDS), SamplingSettings(compile=compile_)
    (expected,) = prior.sample(8, settings=settings)
    (memory,) = prior._cache_memory._kept
    for part in memory:
        part.fill_(float("nan"))
    (actual,) = prior.sample(8, settings=settings)
    assert torch.equal(actual, expected)
    assert addresses(prior._cache_memory._kept[0]) == addresses(memory)  # it was used


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


def test_large_memory_is_not_kept(monkeypatch):
    monkeypatch.setattr(key_value_cache, "_MAX_KEPT_BYTES", 1024)
    memory = CacheMemory()
    memory.give_back([torch.empty(1025, dtype=torch.uint8)])
    assert not memory._kept
    memory.give_back([torch.empty(1024, dtype=torch.uint8)])
    assert len(memory._kept) == 1


@pytest.mark.parametrize("way", ["sample", "complete"])
def test_memory_of_one_cache_is_kept(way):
    prior = make_prior("transformer", GRIDS, any_order=True)
    if way == "sample":
        prior.sample(40, batch_size=16)  # three batches, the last one smaller
    else:
        codes = torch.zeros(8, 5, 4, dtype=torch.int64)
        prior.complete((codes,), (codes.bool(),))
    assert len(prior._cache_memory._kept) == 1


@pytest.mark.usefixtures("_uncompiled")
@pytest.mark.parametrize("compile_", ["off", "on"])
def test_a_prior_that_sampled_in_inference_mode_samples_outside_of_it(compile_):
    prior, settings = make_prior("transformer", GRIDS), SamplingSettings(compile=compile_)
    with torch.inference_mode():
        (expected,) = prior.sample(8, settings=settings)
    for _ in range(2):
        assert torch.equal(prior.sample(8, settings=settings)[0], expected)


def test_memory_is_given_back_once():
    memory = CacheMemory()
    cache = KeyValueCache(
        memory, num_layers=1, batch=1, num_heads=1, length=16, head_dim=2, dtype=torch.float32,
        device=CPU, compiled=True,
    )  # fmt: skip
    cache.close()
    first = memory.take(1, 64, torch.float32, CPU)
    cache.close()
    assert not set(addresses(memory.take(1, 64, torch.float32, CPU))) & set(addresses(first))


def test_copies_of_a_prior_have_no_memory():
    prior = make_prior("transformer", GRIDS)
    prior.sample(8)
    assert not copy.deepcopy(prior)._cache_memory._kept
    assert prior._cache_memory._kept


def test_what_a_compiled_step_wrote_stays_when_room_is_made():
    cache = KeyValueCache(
        CacheMemory(), num_layers=1, batch=2, num_heads=3, length=48, head_dim=4,
        dtype=torch.float32, device=CPU, compiled=True,
    )  # fmt: skip
    cache.reserve(16)
    (kept,) = cache.up_to(20)
    kept.copy_(torch.randn(kept.shape))
    cache.reserve(32)
    (block,) = cache.blocks
    assert block.shape == (2, 2, 3, 32, 4)
    assert torch.equal(block[:, :, :, :20], kept.transpose(2, 3))
    assert not block[:, :, :, 20:].any()
