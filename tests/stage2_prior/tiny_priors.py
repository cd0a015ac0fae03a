"""Small priors with weights far from their initial values, and all the grids they can give."""

import itertools

import pytest
import torch

from stage2_prior import GridSpec, PixelCNNConfig, TransformerConfig, build_prior

CONFIGS = {
    "transformer": TransformerConfig(num_layers=2, width=16, num_heads=2),
    "pixelcnn": PixelCNNConfig(num_layers=3, width=8, kernel_size=3),
}
KINDS = tuple(CONFIGS)
# Standard deviation of the weights: logits that differ, and yet leave every code a chance.
_SPREAD = {"transformer": 0.2, "pixelcnn": 0.4}

# Kind and grids: one, several of one shape with other codebooks, several of other shapes, and
# grids so thin that a convolution has nothing to look at.
SHAPES = [
    pytest.param(kind, tuple(GridSpec(*grid) for grid in grids), id=f"{kind}-{name}")
    for kind, name, grids in [
        ("transformer", "one", [(3, 4, 5)]),
        ("transformer", "equal", [(2, 3, 5), (2, 3, 4)]),
        ("transformer", "growing", [(1, 2, 4), (2, 3, 5), (3, 2, 3)]),
        ("transformer", "single_code", [(1, 1, 3)]),
        ("pixelcnn", "one", [(3, 4, 5)]),
        ("pixelcnn", "equal", [(2, 3, 5), (2, 3, 4), (2, 3, 3)]),
        ("pixelcnn", "row", [(1, 5, 3)]),
        ("pixelcnn", "column", [(5, 1, 3)]),
        ("pixelcnn", "single_code", [(1, 1, 3)]),
    ]
]


def make_prior(kind, grids, num_classes=None, context_grids=(), **changes):
    """A prior in evaluation mode whose every weight, also those that start at zero, is random."""
    config = type(CONFIGS[kind])(**{**_fields(CONFIGS[kind]), **changes})
    prior = build_prior(config, grids, num_classes, context_grids=context_grids)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(_SPREAD[kind] * torch.randn(parameter.shape, generator=generator))
    return prior.eval()


def _fields(config):
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def prediction_order(kind, grids):
    """Positions of the sequence in the order in which the codes are predicted."""
    if kind == "transformer":  # grid by grid
        return list(range(sum(grid.num_codes for grid in grids)))
    num_places = grids[0].num_codes  # place by place, and grid by grid at a place
    return [i * num_places + place for place in range(num_places) for i in range(len(grids))]


def random_sequence(grids, batch, seed=0):
    """int64 (B, L)."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        torch.randint(g.codebook_size, (batch, g.num_codes), generator=generator) for g in grids
    ]
    return torch.cat(parts, dim=1)


def random_labels(num_classes, batch, seed=0):
    """int64 (B,), or None where there are no classes."""
    if num_classes is None:
        return None
    return torch.randint(num_classes, (batch,), generator=torch.Generator().manual_seed(seed))


def network_labels(prior, labels, batch):
    """Labels as `forward` takes them: one past the classes stands for none."""
    return torch.full((batch,), prior.num_classes or 0) if labels is None else labels


def position_of(grids, position):
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


def as_grids(sequence, grids):
    """Cuts and folds the sequence by hand."""
    result, start = [], 0
    for grid in grids:
        part = sequence[:, start : start + grid.num_codes]
        result.append(part.reshape(-1, grid.height, grid.width))
        start += grid.num_codes
    return tuple(result)
