"""Benchmarks of sampling from priors, of other software and of the arithmetic alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from pipelines.benchmarks.peak_memory import memory_of
from pipelines.cli.echo import say
from stage2_prior.config import TransformerConfig
from stage2_prior.grids import GridSpec
from stage2_prior.pretrained import build_prior
from stage2_prior.sampling.compilation import can_compile
from stage2_prior.sampling.settings import SamplingSettings
from stage2_prior.spec import PriorSpec

Number: TypeAlias = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class TransformerSamplingTimes:
    """Medians over the repetitions, in seconds; all measured in turns."""

    samplers: dict[SamplingSettings, float]
    """Sampling codes from a `TransformerPrior`, by its settings."""
    matrix_products: dict[Number, float]
    """The sampler's products of weights and inputs alone, by their precision."""
    gpt2: float | None
    """`GPT2LMHeadModel.generate` of transformers, same depth, width, heads and codes, in float32;
    None where transformers is not installed."""


def benchmark_transformer_sampling(
    settings: Sequence[SamplingSettings],
    *,
    num_samples: int = 64,
    grid: GridSpec | None = None,
    config: TransformerConfig | None = None,
    repetitions: int = 10,
) -> TransformerSamplingTimes:
    """Times samplers of one batch of codes in turns, after one round that is not counted.

    `grid` is 7x7 of 512 by default, and `config` the default network, with random weights.
    """
    grid = grid or GridSpec(7, 7, 512)
    config = config or TransformerConfig()
    torch.manual_seed(0)
    prior = build_prior(config, PriorSpec(grids=(grid,), num_classes=10)).eval()
    labels = torch.arange(num_samples) % 10
    calls: dict[SamplingSettings | str, Callable[[], Any]] = {
        setting: partial(prior.sample, num_samples, labels, setting, batch_size=num_samples)
        for setting in settings
    }
    precisions = {setting.precision for setting in settings}
    for precision in precisions:
        calls[precision] = matrix_products(config, grid, num_samples, precision)
    generate = gpt2_generate(config, grid, num_samples)
    if generate is not None:
        calls["gpt2"] = generate
    medians = _medians(calls, repetitions)
    return TransformerSamplingTimes(
        samplers={setting: medians[setting] for setting in settings},
        matrix_products={precision: medians[precision] for precision in precisions},
        gpt2=medians.get("gpt2"),
    )


def benchmark_transformers(repetitions: int) -> None:
    """Prints how fast the default transformer samples with each setting, and other software."""
    precisions: tuple[Number, ...] = ("float32", "bfloat16")
    candidates = [SamplingSettings(precision=precision) for precision in precisions]
    if can_compile(torch.device("cpu")):
        candidates += [replace(setting, compile="on") for setting in candidates]
    times = benchmark_transformer_sampling(candidates, repetitions=repetitions)
    for setting, seconds in times.samplers.items():
        product = times.matrix_products[setting.precision]
        line = (
            f"transformer, 64 samples of 49 codes of 512, {setting.precision}, "
            f"compile {setting.compile}: {1000 * seconds:.0f} ms, {seconds / product:.1f} times "
            f"its bare matrix products' {1000 * product:.0f} ms"
        )
        if times.gpt2 is not None:
            line += (
                f"; transformers' GPT-2 in float32 {1000 * times.gpt2:.0f} ms, "
                f"{times.gpt2 / seconds:.1f} times ours"
            )
        say(line)


def benchmark_steps(
    num_steps: Sequence[int | None],
    *,
    num_samples: int,
    grid: GridSpec | None = None,
    config: TransformerConfig | None = None,
    repetitions: int = 10,
) -> dict[SamplingSettings, float]:
    """Measures the median seconds of sampling a batch in few steps and in many, in turns.

    None as a number of steps means one code after the other in raster order. `grid` and `config`
    are as for `benchmark_transformer_sampling`, of any order.
    """
    grid = grid or GridSpec(7, 7, 512)
    torch.manual_seed(0)
    prior = build_prior(
        config or TransformerConfig(any_order=True), PriorSpec(grids=(grid,))
    ).eval()
    candidates = [SamplingSettings(num_steps=number) for number in num_steps]
    parallel = [c for c in candidates if (c.num_steps or grid.num_codes) < grid.num_codes]
    candidates += [replace(c, step_order="confidence") for c in parallel]
    return _medians(
        {c: partial(prior.sample, num_samples, None, c) for c in candidates}, repetitions
    )


def benchmark_parallel_decoding(repetitions: int) -> None:
    """Prints how much faster a prior of any order samples several codes at a time."""
    for num_samples in (1, 64):
        seconds = benchmark_steps(
            (None, 49, 16, 8, 4), num_samples=num_samples, repetitions=repetitions
        )
        one_by_one = seconds[SamplingSettings()]
        for setting, taken in seconds.items():
            steps = "one by one" if setting.num_steps is None else f"{setting.num_steps} steps"
            order = "raster" if setting.num_steps is None else setting.step_order
            say(
                f"transformer of any order, batch {num_samples}, 49 codes in {steps} ({order}): "
                f"{1000 * taken:.1f} ms, {one_by_one / taken:.1f} times as fast as one by one"
            )


def transformer_sampling(num_samples: int, batch_size: int) -> Callable[[], object]:
    """Returns a function that samples from the default transformer."""
    prior = build_prior(TransformerConfig(), PriorSpec(grids=(GridSpec(7, 7, 512),))).eval()
    prior.sample(16)  # libraries load, threads start
    return partial(prior.sample, num_samples, batch_size=batch_size)


def benchmark_sampling_memory() -> None:
    """Prints how the memory of sampling grows with the batch and with the number of samples."""
    for num_samples, batch_size in ((64, 64), (256, 64), (1024, 64), (1024, 128), (1024, 256)):
        say(
            f"transformer, {num_samples} samples in batches of {batch_size}: "
            f"{memory_of(transformer_sampling, num_samples, batch_size):.0f} MB of memory above "
            "the weights"
        )


def _medians(
    calls: Mapping[SamplingSettings | str, Callable[[], object]], repetitions: int
) -> dict[Any, float]:
    """Computes the median seconds of each call, measured in turns after an uncounted round.

    A turn is two calls of which the second counts, as in sampling batch after batch: the first
    finds the processor's caches full of other data.
    """
    seconds: dict[SamplingSettings | str, list[float]] = {name: [] for name in calls}
    with torch.no_grad():
        for _ in range(repetitions + 1):
            for name, call in calls.items():
                call()
                start = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def matrix_products(
    config: TransformerConfig, grid: GridSpec, num_samples: int, precision: str
) -> Callable[[], None]:
    """Returns a function that only multiplies weights with the batch's features, for every code."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    width = config.width
    sizes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    sizes = sizes * config.num_layers + [(width, grid.codebook_size)]
    pairs: list[tuple[Tensor, Tensor]] = [
        (torch.randn(num_samples, inputs).to(dtype), torch.randn(inputs, outputs).to(dtype))
        for inputs, outputs in sizes
    ]

    def multiply() -> None:
        for _ in range(grid.num_codes):
            for features, weight in pairs:
                torch.mm(features, weight)

    return multiply


def gpt2_generate(
    config: TransformerConfig, grid: GridSpec, num_samples: int
) -> Callable[[], object] | None:
    """Returns a function that samples as many codes with transformers' GPT-2, if installed."""
    try:
        transformers = import_module("transformers")
    except ImportError:
        return None
    start = grid.codebook_size
    gpt2: Any = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=grid.codebook_size + 1,  # and the start
            n_positions=grid.num_codes + 1,
            n_embd=config.width,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    gpt2.eval()
    prompt = torch.full((num_samples, 1), start)
    mask = torch.ones_like(prompt)
    length = grid.num_codes

    def generate() -> object:
        return gpt2.generate(
            prompt,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            min_new_tokens=length,
            max_new_tokens=length,
        )

    return generate
