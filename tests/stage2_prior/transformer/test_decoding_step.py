"""The step that is compiled: it draws what the network draws, compiled or not."""

import re
from dataclasses import replace

import pytest
import torch
from stage2_prior.transformer.sampler import TransformerSampler
from tiny_priors import as_grids, make_prior, random_labels, random_sequence

from stage2_prior import GridSpec, SamplingSettings
from stage2_prior.sampling.compilation import can_compile
from stage2_prior.sampling.logits import checks as request
from stage2_prior.transformer.prior import TransformerPrior

# More codes than the cache's unit of 16, so that it grows while drawing; two grids.
GRIDS = (GridSpec(3, 3, 5), GridSpec(4, 3, 6))
CONTEXT = (GridSpec(2, 1, 4),)
PRIORS = {
    "plain": {},
    "classes": {"num_classes": 3},
    "context": {"context_grids": CONTEXT},
    "any_order": {"any_order": True},
}
SETTINGS = {
    "plain": {},
    "guided": {"guidance_scale": 2.0},
    "guided more and more": {
        "guidance_scale": 3.0,
        "guidance_schedule": "cosine",
        "first_guidance_scale": 0.5,
    },
    "hotter and hotter": {"first_temperature": 0.5, "temperature": 2.0},
    "guided less and less": {"guidance_schedule": "linear", "first_guidance_scale": 3.0},
    "likeliest": {"temperature": 0.0},
    "cold": {"temperature": 0.5, "top_k": 3},
    "hot": {"temperature": 1.7, "top_p": 0.8},
}


@pytest.fixture
def _compiler():
    if not can_compile(torch.device("cpu")):
        pytest.skip("there is no C++ compiler")


def draw(compile_, prior="plain", settings="plain", count=20, batch_size=64):
    options = PRIORS[prior]
    torch.manual_seed(0)  # the prior starts from random weights
    model = make_prior("transformer", GRIDS, **options)
    context = None
    if "context_grids" in options:
        context = as_grids(random_sequence(CONTEXT, count), CONTEXT)
    labels = random_labels(options.get("num_classes"), count)
    chosen = SamplingSettings(compile=compile_, **SETTINGS[settings])
    return model.sample(count, labels, chosen, context=context, seed=3, batch_size=batch_size)


CASES = [(name, "plain") for name in PRIORS] + [("classes", name) for name in SETTINGS]


@pytest.mark.usefixtures("_uncompiled")
@pytest.mark.parametrize(("prior", "settings"), CASES)
def test_step_draws_the_codes_of_the_uncompiled_sampler(prior, settings):
    expected = draw("off", prior, settings)
    for actual, grid in zip(draw("on", prior, settings), expected, strict=True):
        assert torch.equal(actual, grid)


@pytest.mark.usefixtures("_compiler")
@pytest.mark.parametrize("settings", ["guided more and more", "hotter and hotter", "cold", "hot"])
def test_compiled_step_draws_the_same_codes_in_batches_of_any_size(settings):
    expected = draw("off", "classes", settings, count=40)
    actual = draw("on", "classes", settings, count=40, batch_size=16)
    for ours, grid in zip(actual, expected, strict=True):
        assert torch.equal(ours, grid)


@pytest.mark.usefixtures("_compiler")
def test_step_is_compiled_once_for_each_codebook_size():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    draw("on", count=32)  # 21 codes: the cache has 16 positions, then 32
    versions = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    draw("on", count=30)  # filled up to as many rows
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == versions == 2


@pytest.mark.usefixtures("_compiler")
def test_another_temperature_or_guidance_scale_compiles_nothing():
    prior, labels = make_prior("transformer", (GridSpec(2, 2, 5),), 3), random_labels(3, 8)
    prior.sample(8, labels, SamplingSettings(compile="on", temperature=0.7, guidance_scale=1.5))
    versions = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    others = (
        SamplingSettings(temperature=0.8, guidance_scale=1.5),
        SamplingSettings(temperature=1.2, guidance_scale=3.0),
        SamplingSettings(
            temperature=1.2,
            first_temperature=0.6,
            guidance_scale=3.0,
            guidance_schedule="linear",
            first_guidance_scale=0.5,
        ),
    )
    for settings in others:
        expected = prior.sample(8, labels, settings)
        actual = prior.sample(8, labels, replace(settings, compile="on"))
        assert torch.equal(actual[0], expected[0])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == versions


@pytest.mark.usefixtures("_uncompiled")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_step_takes_up_where_the_uncompiled_pass_ended(precision):
    # Known codes are read in one pass, the others one by one: both write to the same cache.
    prior = make_prior("transformer", GRIDS, any_order=True)
    codes = as_grids(random_sequence(GRIDS, 8), GRIDS)
    known = tuple(torch.rand(grid.shape) < 0.5 for grid in codes)
    drawn = {
        compile_: prior.complete(
            codes, known, settings=SamplingSettings(compile=compile_, precision=precision)
        )
        for compile_ in ("off", "on")
    }
    same = [(a == b).double().mean() for a, b in zip(drawn["off"], drawn["on"], strict=True)]
    # In bfloat16 sums are rounded in other places, which turns a draw here and there.
    assert min(same) == 1 if precision == "float32" else min(same) > 0.95


@pytest.mark.usefixtures("_uncompiled")
def test_large_attention_scores_do_not_overflow():
    prior = make_prior("transformer", GRIDS)
    with torch.no_grad():
        for block in prior.blocks:
            block.attention.to_qkv.weight.mul_(1000)
    expected = prior.sample(16)
    for actual, grid in zip(
        prior.sample(16, settings=SamplingSettings(compile="on")), expected, strict=True
    ):
        assert torch.equal(actual, grid)


@pytest.mark.usefixtures("_uncompiled")
def test_three_grids_in_an_order_of_each_image():
    grids = (GridSpec(2, 2, 5), GridSpec(2, 1, 3), GridSpec(1, 2, 4))
    prior = make_prior("transformer", grids, any_order=True)
    codes = as_grids(random_sequence(grids, 8), grids)
    known = tuple(torch.zeros_like(grid, dtype=torch.bool) for grid in codes)
    order = torch.rand(8, 8).argsort(dim=1)
    expected, actual = (
        prior.complete(codes, known, settings=SamplingSettings(compile=compile_), order=order)
        for compile_ in ("off", "on")
    )
    for ours, grid in zip(actual, expected, strict=True):
        assert torch.equal(ours, grid)


def test_bfloat16_cache_holds_what_was_computed():
    # Keys and values come out of a bfloat16 product: keeping them so loses nothing.
    prior = make_prior("transformer", GRIDS)
    settings = SamplingSettings(compile="on", precision="bfloat16")
    sampler = TransformerSampler(prior, torch.zeros(4, dtype=torch.int64), settings)
    sampler._cache.reserve(16)
    assert {block.dtype for block in sampler._cache.blocks} == {torch.bfloat16}
    assert len({block.untyped_storage().data_ptr() for block in sampler._cache.blocks}) == 2


@pytest.mark.usefixtures("_uncompiled")
def test_compiled_batches_are_all_of_one_size(monkeypatch):
    sizes, draw_sequence = [], TransformerPrior.draw_sequence

    def watched(prior, labels, *rest):
        sizes.append(len(labels))
        return draw_sequence(prior, labels, *rest)

    monkeypatch.setattr(TransformerPrior, "draw_sequence", watched)
    (first, _) = draw("on", count=70, batch_size=32)
    assert (sizes, len(first)) == ([32, 32, 32], 70)


@pytest.mark.parametrize(("num_draws", "decided"), [(499_999, "off"), (500_000, "on")])
def test_auto_compiles_from_half_a_million_draws_on(num_draws, decided, monkeypatch):
    monkeypatch.setattr(request, "can_compile", lambda _device: True)
    settings = SamplingSettings(compile="auto", top_k=3)
    actual = request.decide_compilation(settings, num_draws, torch.device("cpu"), possible=True)
    assert actual == SamplingSettings(compile=decided, top_k=3)


@pytest.mark.parametrize(("able", "possible"), [(False, True), (True, False)])
def test_auto_does_without_where_it_cannot(able, possible, monkeypatch):
    monkeypatch.setattr(request, "can_compile", lambda _device: able)
    actual = request.decide_compilation(
        SamplingSettings(compile="auto"), 10**9, torch.device("cpu"), possible=possible
    )
    assert actual == SamplingSettings(compile="off")


def test_missing_compiler_is_said(monkeypatch):
    monkeypatch.setattr(request, "can_compile", lambda _device: False)
    message = re.escape("compile on needs a C++ compiler (or Triton on a GPU) that works, but none")
    with pytest.raises(RuntimeError, match=message):
        draw("on")


def test_a_compiler_that_fails_is_no_compiler(monkeypatch):
    def fail(*_arguments, **_options):
        raise RuntimeError("omp.h: No such file or directory")

    monkeypatch.setattr(torch, "compile", lambda *_arguments, **_options: fail)
    can_compile.cache_clear()
    assert not can_compile(torch.device("cpu"))
    can_compile.cache_clear()


def test_several_codes_at_a_time_refuse_to_compile():
    prior = make_prior("transformer", GRIDS, any_order=True)
    message = "compile on compiles the step that draws one code, which num_steps 3 does without"
    with pytest.raises(ValueError, match=message):
        prior.sample(1, settings=SamplingSettings(compile="on", num_steps=3))


def test_auto_leaves_several_codes_at_a_time_uncompiled(monkeypatch):
    monkeypatch.setattr(request, "can_compile", lambda _device: True)
    actual = request.decide_compilation(
        SamplingSettings(compile="auto", num_steps=3), 10**9, torch.device("cpu"), possible=True
    )
    assert actual.compile == "off"


def test_pixelcnn_refuses_to_compile():
    prior = make_prior("pixelcnn", (GridSpec(2, 2, 3),))
    message = "compile on needs a transformer prior, this one is a pixelcnn: keep it off"
    with pytest.raises(ValueError, match=message):
        prior.sample(1, settings=SamplingSettings(compile="on"))
