"""Small priors of every form with random weights, and data for them."""

import itertools
from dataclasses import dataclass, field, replace

import pytest
import torch

from stage2_prior import (
    FeatureSpec,
    GridSpec,
    PixelCNNConfig,
    PriorSpec,
    TransformerConfig,
    build_prior,
)

CONFIGS = {
    "transformer": TransformerConfig(num_layers=2, width=16, num_heads=2),
    "pixelcnn": PixelCNNConfig(num_layers=3, width=8, kernel_size=3),
}
KINDS = tuple(CONFIGS)
# Standard deviation of the weights: logits that differ, and yet leave every code a chance.
_SPREAD = {"transformer": 0.2, "pixelcnn": 0.4}


def make_prior(kind, grids, num_classes=None, context=(), **changes):
    """A prior in evaluation mode whose every weight, also those that start at zero, is random."""
    spec = PriorSpec(grids=grids, num_classes=num_classes, context=context)
    return with_random_weights(build_prior(replace(CONFIGS[kind], **changes), spec))


def with_random_weights(prior):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in prior.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(_SPREAD[prior.config.kind] * noise)
    return prior.eval()


@dataclass(frozen=True)
class Variant:
    """A form of prior: its kind, what it is a distribution over, and options of its config."""

    kind: str
    grids: tuple[GridSpec, ...]
    context: tuple[GridSpec, ...] | FeatureSpec = ()
    options: dict = field(default_factory=dict)

    def config(self, **changes):
        return replace(CONFIGS[self.kind], **{**self.options, **changes})

    def make(self, num_classes=None, **changes):
        return make_prior(
            self.kind, self.grids, num_classes, self.context, **{**self.options, **changes}
        )


def _grids(*grids):
    return tuple(GridSpec(*grid) for grid in grids)


SQUARE = _grids((2, 2, 3))
SEVERAL = _grids((1, 2, 4), (2, 3, 5))
ANY_ORDER = {"any_order": True}
ATTENTION = {"attention_every": 1, "num_heads": 2}
FEATURES = FeatureSpec(2, 3, 2)
_CODES = _grids((2, 1, 4), (1, 3, 3))
_ONE = _grids((3, 5, 5))
_EQUAL = _grids((3, 3, 5), (3, 3, 4), (3, 3, 3))
_COARSER_AND_FINER = _grids((2, 2, 4), (5, 6, 3))

VARIANTS = {
    f"{kind}-{name}": Variant(kind, *rest)
    for kind, name, *rest in [
        ("transformer", "one", _grids((3, 4, 5))),
        ("transformer", "equal", _grids((2, 3, 5), (2, 3, 4))),
        ("transformer", "growing", _grids((1, 2, 4), (2, 3, 5), (3, 2, 3))),
        ("transformer", "single_code", _grids((1, 1, 3))),
        ("transformer", "features", SEVERAL, FEATURES),
        ("transformer", "any_order", SEVERAL, (), ANY_ORDER),
        ("transformer", "any_order_context", SEVERAL, _CODES, ANY_ORDER),
        ("transformer", "any_order_features", SEVERAL, FEATURES, ANY_ORDER),
        ("pixelcnn", "one", _ONE),
        ("pixelcnn", "one_layer", _ONE, (), {"num_layers": 1}),
        ("pixelcnn", "kernel_5", _ONE, (), {"kernel_size": 5, "num_layers": 2}),
        ("pixelcnn", "kernel_beyond_the_grid", _ONE, (), {"kernel_size": 11}),
        ("pixelcnn", "equal", _EQUAL),
        ("pixelcnn", "row", _grids((1, 5, 3))),
        ("pixelcnn", "column", _grids((5, 1, 3))),
        ("pixelcnn", "single_code", _grids((1, 1, 3))),
        ("pixelcnn", "attention", _ONE, (), ATTENTION),
        ("pixelcnn", "attention_inside", _ONE, (), {"attention_every": 2, "num_heads": 1}),
        ("pixelcnn", "context", _ONE, _COARSER_AND_FINER),
        ("pixelcnn", "features", _ONE, FEATURES),
        ("pixelcnn", "all", _EQUAL, _COARSER_AND_FINER, ATTENTION),
    ]
}
# Small enough to look at every sequence.
TINY = {
    f"{kind}-{name}": Variant(kind, *rest)
    for kind, name, *rest in [
        ("transformer", "square", SQUARE),
        ("transformer", "growing", _grids((1, 1, 4), (2, 2, 2))),
        ("transformer", "context", SQUARE, _CODES),
        ("transformer", "features", SQUARE, FEATURES),
        ("transformer", "any_order", _grids((1, 2, 3), (1, 2, 4)), (), ANY_ORDER),
        ("transformer", "any_order_features", SQUARE, FEATURES, ANY_ORDER),
        ("pixelcnn", "square", SQUARE),
        ("pixelcnn", "kernel_5", SQUARE, (), {"kernel_size": 5}),
        ("pixelcnn", "attention", SQUARE, (), ATTENTION),
        ("pixelcnn", "context", SQUARE, _CODES, ATTENTION),
        ("pixelcnn", "features", SQUARE, FEATURES),
        ("pixelcnn", "equal", _grids((2, 1, 2), (2, 1, 3), (2, 1, 2)), (), ATTENTION),
    ]
}


def params(variants, *names):
    """Parameters for pytest: the variants of these names, or all."""
    return [pytest.param(variants[name], id=name) for name in names or variants]


EVERY_VARIANT, EVERY_TINY = params(VARIANTS), params(TINY)
EVERY_ANY_ORDER = [p for p in EVERY_VARIANT if "any_order" in p.id]
# One of each kind, and what differs most from it.
SOME = params(
    VARIANTS,
    *("transformer-growing", "transformer-any_order_features"),
    *("pixelcnn-all", "pixelcnn-features"),
)


def prediction_order(kind, grids):
    """Positions of the sequence in the order in which the codes are predicted."""
    if kind == "transformer":  # grid by grid
        return list(range(sum(grid.num_codes for grid in grids)))
    length = grids[0].num_codes  # position by position, and grid by grid at each
    return [i * length + position for position in range(length) for i in range(len(grids))]


def random_sequence(grids, batch, seed=0):
    """int64 (B, L)."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        torch.randint(g.codebook_size, (batch, g.num_codes), generator=generator) for g in grids
    ]
    return torch.cat(parts, dim=1)


def random_labels(num_classes, batch, seed=0):
    """int64 (B,), or None for a prior without classes."""
    if num_classes is None:
        return None
    return torch.randint(num_classes, (batch,), generator=torch.Generator().manual_seed(seed))


def network_labels(prior, labels, batch):
    """Labels as `forward` takes them: one past the classes stands for none."""
    return torch.full((batch,), prior.num_classes or 0) if labels is None else labels


def random_context(spec, batch, seed=9):
    """A context as `forward` takes it: int64 (B, Lc), float32 (B, Lc, D), or None."""
    if isinstance(spec, FeatureSpec):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, spec.height * spec.width, spec.dim, generator=generator)
    return random_sequence(spec, batch, seed) if spec else None


def as_context(context, spec):
    """A context of `random_context` as `log_prob` and `sample` take it."""
    return context if context is None or isinstance(spec, FeatureSpec) else as_grids(context, spec)


def position_in_grid(grids, position):
    """Grid of a position of the sequence, and its number within the grid's part."""
    for i, grid in enumerate(grids):
        if position < grid.num_codes:
            return i, position
        position -= grid.num_codes
    raise AssertionError("beyond the sequence")


def all_sequences(grids):
    """Every sequence there is: int64 (number, L)."""
    ranges = [range(grid.codebook_size) for grid in grids for _ in range(grid.num_codes)]
    return torch.tensor(list(itertools.product(*ranges)))


def sequence_counts(codes, grids):
    """How often each sequence of `all_sequences`, which counts like an odometer, occurs."""
    sizes = [grid.codebook_size for grid in grids for _ in range(grid.num_codes)]
    number = torch.zeros(len(codes[0]), dtype=torch.int64)
    for size, column in zip(sizes, flat(codes).unbind(dim=1), strict=True):
        number = number * size + column
    return torch.bincount(number, minlength=torch.tensor(sizes).prod().item()).numpy()


def as_grids(sequence, grids):
    """Splits and reshapes the sequence without the code under test."""
    result, start = [], 0
    for grid in grids:
        part = sequence[:, start : start + grid.num_codes]
        result.append(part.reshape(-1, grid.height, grid.width))
        start += grid.num_codes
    return tuple(result)


def flat(codes):
    """Grids (B, h_i, w_i) as one sequence (B, L)."""
    return torch.cat([grid.flatten(1) for grid in codes], dim=1)
