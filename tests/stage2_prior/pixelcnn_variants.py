"""Tiny PixelCNNs of every kind there is, and the sampler that needs no cache."""

from dataclasses import dataclass, field

import pytest
import torch
from naive_drawing import scale_and_draw_options
from tiny_priors import random_sequence

from stage2_prior import GridSpec, PixelCNNConfig, build_prior
from stage2_prior.sampling.logits import choose


@dataclass(frozen=True)
class Variant:
    """Grids and options of a PixelCNN."""

    grids: tuple[GridSpec, ...]
    context_grids: tuple[GridSpec, ...] = ()
    options: dict = field(default_factory=dict)


ONE = (GridSpec(3, 5, 5),)
EQUAL = (GridSpec(3, 3, 5), GridSpec(3, 3, 4), GridSpec(3, 3, 3))
ATTENTION = {"attention_every": 1, "num_heads": 2}
CONTEXT = (GridSpec(2, 2, 4), GridSpec(5, 6, 3))  # one coarser than the grid, one finer
VARIANTS = {
    "plain": Variant(ONE),
    "one_layer": Variant(ONE, options={"num_layers": 1}),
    "kernel_5": Variant(ONE, options={"kernel_size": 5, "num_layers": 2}),
    "kernel_beyond_the_grid": Variant(ONE, options={"kernel_size": 11}),
    "equal_grids": Variant(EQUAL),
    "row": Variant((GridSpec(1, 5, 3),)),
    "column": Variant((GridSpec(5, 1, 3),)),
    "single_code": Variant((GridSpec(1, 1, 3),)),
    "attention": Variant(ONE, options=ATTENTION),
    "attention_in_the_middle": Variant(ONE, options={"attention_every": 2, "num_heads": 1}),
    "attention_over_equal_grids": Variant(EQUAL, options=ATTENTION),
    "attention_over_a_column": Variant((GridSpec(5, 1, 3),), options=ATTENTION),
    "context": Variant(ONE, CONTEXT),
    "context_and_attention_and_equal_grids": Variant(EQUAL, CONTEXT, ATTENTION),
}
EVERY_VARIANT = [pytest.param(variant, id=name) for name, variant in VARIANTS.items()]
# Small enough to look at every grid there is.
TINY_VARIANTS = [
    pytest.param(Variant(grids, context, options), id=name)
    for name, grids, context, options in [
        ("plain", (GridSpec(2, 2, 3),), (), {}),
        ("kernel_5", (GridSpec(2, 2, 3),), (), {"kernel_size": 5}),
        ("attention", (GridSpec(2, 2, 3),), (), ATTENTION),
        ("context", (GridSpec(2, 2, 3),), (GridSpec(1, 2, 3),), {}),
        ("context_and_attention", (GridSpec(2, 2, 3),), (GridSpec(1, 2, 3),), ATTENTION),
        ("equal_grids", (GridSpec(1, 2, 3), GridSpec(1, 2, 3)), (), ATTENTION),
    ]
]


def make_pixelcnn(variant, num_classes=None, **options):
    """In evaluation mode, every weight random, also those that start at zero."""
    options = {"num_layers": 3, "width": 8, "kernel_size": 3, **variant.options, **options}
    prior = build_prior(
        PixelCNNConfig(**options), variant.grids, num_classes, None, variant.context_grids
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
    return prior.eval()


def random_context(variant, batch, seed=5):
    """int64 (B, Lc), or None."""
    return random_sequence(variant.context_grids, batch, seed) if variant.context_grids else None


def places_in_order(grids):
    """(grid, place) of every code, in the order in which they are drawn."""
    return [(i, place) for place in range(grids[0].num_codes) for i in range(len(grids))]


def draw_naively(prior, labels, settings, uniform, context=None):
    """The whole network for every code, all later codes being zero."""
    num_places = prior.grids[0].num_codes
    nobody = torch.full_like(labels, prior.null_label)
    sequence = torch.zeros(uniform.shape, dtype=torch.int64)
    for num_known, (grid, place) in enumerate(places_in_order(prior.grids)):
        scale, how = scale_and_draw_options(settings, num_known, uniform.shape[1])
        logits = prior(sequence, labels, context)[grid][:, place]
        if scale != 1:
            without = prior(sequence, nobody, context)[grid][:, place]
            logits = without + scale * (logits - without)
        position = grid * num_places + place
        sequence[:, position] = choose(logits, uniform[:, position], **how)
    return sequence
