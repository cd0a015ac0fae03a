"""What each logit depends on: nothing that comes later, and everything earlier within reach."""

import pytest
import torch
from tiny_priors import (
    KINDS,
    SHAPES,
    make_prior,
    network_labels,
    prediction_order,
    random_labels,
    random_sequence,
)

from stage2_prior import GridSpec


def logits_by_position(prior, sequence, labels):
    """One (K,) per position; a batch of one, whose rounding never varies."""
    return [row for logits in prior(sequence[None], labels) for row in logits[0]]


def influences(prior, grids, labels):
    """Pairs (position of a code, position of the logits that change with that code)."""
    sequence = random_sequence(grids, 1)[0]
    sizes = [grid.codebook_size for grid in grids for _ in range(grid.num_codes)]
    before = logits_by_position(prior, sequence, labels)
    found = set()
    for source, size in enumerate(sizes):
        changed = sequence.clone()
        changed[source] = (changed[source] + 1) % size
        after = logits_by_position(prior, changed, labels)
        found |= {
            (source, target)
            for target in range(len(sizes))
            if not torch.equal(before[target], after[target])
        }
    return found


def code_gradients(prior, sequence, labels, grid, place):
    """How strongly the logits of one code follow each code's embeddings: float64 (L,)."""
    sums = [torch.zeros(g.num_codes) for g in prior.grids]
    hooks, outputs = [], []
    for name in ("code_embeddings", "same_place"):
        for i, embedding in enumerate(getattr(prior, name, [])):

            def cut_here(_module, _args, output, i=i):
                outputs.append((i, output.detach().requires_grad_()))
                return outputs[-1][1]

            hooks.append(embedding.register_forward_hook(cut_here))
    prior(sequence, labels)[grid][0, place].square().sum().backward()
    for hook in hooks:
        hook.remove()
    for i, output in outputs:
        if output.grad is not None:
            sums[i] += output.grad.abs().sum(dim=-1).flatten()
    return torch.cat(sums)


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize(("kind", "grids"), SHAPES)
def test_logits_depend_on_exactly_the_codes_before_them(kind, grids, num_classes):
    # Four layers with kernels of 3 reach four places, which is all of these grids.
    deep = {"num_layers": 4} if kind == "pixelcnn" else {}
    prior = make_prior(kind, grids, num_classes, **deep)
    labels = network_labels(prior, random_labels(num_classes, 1), 1)
    order = prediction_order(kind, grids)
    before = {(s, t) for i, t in enumerate(order) for s in order[:i]}
    assert influences(prior, grids, labels) == before


@pytest.mark.parametrize(("kind", "grids"), SHAPES)
def test_first_logits_depend_on_the_label(kind, grids):
    prior = make_prior(kind, grids, 3)
    sequence = random_sequence(grids, 1)
    first = prediction_order(kind, grids)[0]
    rows = [
        logits_by_position(prior, sequence[0], torch.tensor([label]))[first] for label in range(4)
    ]
    assert all(not torch.equal(rows[i], rows[j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize("kind", KINDS)
def test_later_codes_get_no_gradient_in_training(kind):
    # Dropout and training mode must not open a way for the future.
    grids = (GridSpec(2, 3, 4), GridSpec(2, 3, 3))
    prior = make_prior(kind, grids).train()
    sequence, labels = random_sequence(grids, 1), torch.zeros(1, dtype=torch.int64)
    order = prediction_order(kind, grids)
    for i, position in enumerate(order):
        gradients = code_gradients(prior, sequence, labels, *divmod(position, 6))
        assert not gradients[order[i:]].any()


def receptive_field(height, width, row, column, reach):
    """Where a PixelCNN of this reach looks from (row, column): earlier in the raster, and near."""
    return {
        (i, j)
        for i in range(height)
        for j in range(width)
        if i >= row - reach and abs(j - column) <= reach and (i, j) < (row, column)
    }


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 6), (2, 3), (4, 0), (4, 3), (4, 6)])
@pytest.mark.parametrize(("kernel_size", "num_layers"), [(3, 1), (3, 2), (3, 4), (5, 1), (5, 2)])
def test_pixelcnn_receptive_field_is_exactly_half_a_kernel_per_layer(
    kernel_size, num_layers, row, column
):
    height, width, reach = 5, 7, num_layers * (kernel_size // 2)
    grids = (GridSpec(height, width, 3),)
    prior = make_prior("pixelcnn", grids, kernel_size=kernel_size, num_layers=num_layers)
    labels = torch.zeros(1, dtype=torch.int64)
    gradients = code_gradients(prior, random_sequence(grids, 1), labels, 0, row * width + column)
    seen = {divmod(int(place), width) for place in gradients.nonzero()}
    assert seen == receptive_field(height, width, row, column, reach)


def test_pixelcnn_receptive_field_is_the_same_in_every_grid_and_includes_earlier_grids_here():
    height, width, grids = 3, 5, (GridSpec(3, 5, 4), GridSpec(3, 5, 3), GridSpec(3, 5, 2))
    prior = make_prior("pixelcnn", grids, kernel_size=3, num_layers=1)
    labels = torch.zeros(1, dtype=torch.int64)
    gradients = code_gradients(prior, random_sequence(grids, 1), labels, 1, 1 * width + 2)
    near = receptive_field(height, width, 1, 2, 1)
    seen = {
        (grid, *divmod(place, width))
        for grid, place in (divmod(int(p), height * width) for p in gradients.nonzero())
    }
    assert seen == {(grid, *place) for grid in range(3) for place in near} | {(0, 1, 2)}
