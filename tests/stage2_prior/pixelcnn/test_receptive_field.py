"""What each logit of a PixelCNN depends on, by gradient, against sets passed on by hand."""

import pytest
import torch
from pixelcnn_variants import (
    ATTENTION,
    EQUAL,
    EVERY_VARIANT,
    Variant,
    make_pixelcnn,
    places_in_order,
    random_context,
)
from tiny_priors import random_labels, random_sequence

from stage2_prior import GridSpec

WIDE = GridSpec(5, 7, 3)


def gradients(prior, variant, grid, place):
    """How strongly one code's logits follow the embedding of each code and context code.

    Returns:
        Names (kind, grid, row, column) with their gradients; kind is `code` (as the layers see
        it), `same` (as later grids of its place see it) or `context`.
    """
    outputs, hooks = [], []

    def watch(embedding, kind, i):
        def cut_here(_module, _args, output):
            outputs.append((kind, i, output.detach().requires_grad_()))
            return outputs[-1][2]

        hooks.append(embedding.register_forward_hook(cut_here))

    for kind, embeddings in [
        ("code", prior.code_embeddings),
        ("same", prior.same_place),
        ("context", prior.context_network.embeddings if prior.context_network else []),
    ]:
        for i, embedding in enumerate(embeddings):
            watch(embedding, kind, i)
    labels = random_labels(prior.num_classes, 1) if prior.num_classes else torch.tensor([0])
    logits = prior(random_sequence(prior.grids, 1), labels, random_context(variant, 1))
    logits[grid][0, place].square().sum().backward()
    for hook in hooks:
        hook.remove()
    found = {}
    for kind, i, output in outputs:
        if output.grad is not None:
            for row, column in torch.cartesian_prod(
                torch.arange(output.shape[1]), torch.arange(output.shape[2])
            ).tolist():
                name = (kind, i, row, column)
                strength = output.grad[0, row, column].abs().sum().item()
                found[name] = found.get(name, 0.0) + strength
    return found


def seen(prior, variant, grid, place):
    return {name for name, strength in gradients(prior, variant, grid, place).items() if strength}


def union(sets):
    return set().union(*sets)


def expected_seen(variant, config, grid, place):
    """The layers' wiring on sets of names instead of numbers."""
    height, width = variant.grids[0].height, variant.grids[0].width
    places = [(i, j) for i in range(height) for j in range(width)]
    reach = config.kernel_size // 2
    near = range(-reach, reach + 1)
    codes = {p: {("code", g, *p) for g in range(len(variant.grids))} for p in places}
    context = {p: set() for p in places}
    for g, spec in enumerate(variant.context_grids):
        for i, j in places:
            # A cell of the context belongs to a place where the two overlap.
            rows = range(i * spec.height // height, -(-(i + 1) * spec.height // height))
            columns = range(j * spec.width // width, -(-(j + 1) * spec.width // width))
            context[i, j] |= {("context", g, r, c) for r in rows for c in columns}
    context = {  # through two convolutions
        (i, j): union(
            context.get((i + a, j + b), set())
            for a in range(-2 * reach, 2 * reach + 1)
            for b in range(-2 * reach, 2 * reach + 1)
        )
        for i, j in places
    }
    vertical = horizontal = codes
    known = {p: set() for p in places}
    for layer in range(config.num_layers):
        last_row = 0 if layer else -1
        above = {
            (i, j): context[i, j]
            | union(
                vertical.get((i + a, j + b), set())
                for a in range(-reach, last_row + 1)
                for b in near
            )
            for i, j in places
        }
        gated = {
            (i, j): above[i, j]
            | union(horizontal.get((i, j + b), set()) for b in range(-reach, last_row + 1))
            for i, j in places
        }
        vertical = above
        horizontal = {p: gated[p] | (horizontal[p] if layer else set()) for p in places}
        known = {p: known[p] | gated[p] for p in places}
        if config.attention_every and (layer + 1) % config.attention_every == 0:
            attended = {
                p: union(horizontal[q] for q in places[: n + 1]) for n, p in enumerate(places)
            }
            horizontal = {p: horizontal[p] | attended[p] for p in places}
            known = {p: known[p] | attended[p] for p in places}
    here = places[place]
    return known[here] | {("same", g, *here) for g in range(grid)}


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_later_codes_get_no_gradient_in_training(variant, num_classes):
    # Dropout and training mode must not open a way for the future.
    prior = make_pixelcnn(variant, num_classes).train()
    width = variant.grids[0].width
    order = places_in_order(variant.grids)
    for n, (grid, place) in enumerate(order):
        later = {(g, *divmod(p, width)) for g, p in order[n:]}
        codes = {name[1:] for name in seen(prior, variant, grid, place) if name[0] != "context"}
        assert not codes & later


@pytest.mark.parametrize("place", [(0, 0), (0, 6), (2, 3), (4, 0), (4, 3), (4, 6)])
@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 1},
        {"num_layers": 1, **ATTENTION},
        {"num_layers": 2, "attention_every": 2, "num_heads": 2},
        {"num_layers": 3, "attention_every": 2, "num_heads": 2},
        {"num_layers": 2, "kernel_size": 5, **ATTENTION},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "context_grids",
    [(), (WIDE,), (GridSpec(2, 3, 4),), (GridSpec(10, 14, 3), GridSpec(1, 1, 3))],
    ids=["none", "equal", "coarser", "finer_and_single"],
)
def test_receptive_field_is_exact(options, context_grids, place):
    variant = Variant((WIDE,), context_grids, options)
    prior = make_pixelcnn(variant)
    number = place[0] * WIDE.width + place[1]
    assert seen(prior, variant, 0, number) == expected_seen(variant, prior.config, 0, number)


@pytest.mark.parametrize("grid", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, ATTENTION], ids=["plain", "attention"])
def test_receptive_field_of_several_grids_is_exact(options, grid):
    variant = Variant(EQUAL, (GridSpec(2, 2, 4),), {"num_layers": 1, **options})
    prior = make_pixelcnn(variant)
    for place in range(9):
        expected = expected_seen(variant, prior.config, grid, place)
        assert seen(prior, variant, grid, place) == expected


def test_one_attention_block_brings_every_earlier_code_within_reach():
    # Where three layers of convolutions alone see a corner of the grid.
    grid = GridSpec(9, 9, 3)
    plain, attending = Variant((grid,)), Variant((grid,), options=ATTENTION)
    near = {name[2:] for name in seen(make_pixelcnn(plain), plain, 0, 80)}
    everything = {name[2:] for name in seen(make_pixelcnn(attending), attending, 0, 80)}
    assert everything == {divmod(place, 9) for place in range(80)}
    assert len(near) < 30
