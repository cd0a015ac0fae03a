"""What a prior's logits depend on, by gradient, and what they should depend on, by hand."""

import torch
from tiny_priors import (
    network_labels,
    position_in_grid,
    prediction_order,
    random_context,
    random_sequence,
)

from stage2_prior import FeatureSpec, GridSpec


def influences(prior, position, order=None):
    """Which codes and context positions one position's logits follow, by gradient.

    Returns:
        Names ("code", position) and ("context", position).
    """
    outputs, hooks = [], []

    def watch(embedding, kind, start):
        def cut_here(_module, _args, output):
            outputs.append((kind, start, output.detach().requires_grad_()))
            return outputs[-1][2]

        hooks.append(embedding.register_forward_hook(cut_here))

    spec = prior.spec.context
    for kind, embeddings, grids in [
        ("code", prior.code_embeddings, prior.grids),
        ("code", prior.output.earlier if prior.config.kind == "pixelcnn" else [], prior.grids),
        ("context", _context_embeddings(prior), spec),
    ]:
        for i, embedding in enumerate(embeddings):
            watch(embedding, kind, sum(g.num_codes for g in grids[:i]))
    context = random_context(spec, 1)
    if isinstance(spec, FeatureSpec):
        outputs.append(("context", 0, context.requires_grad_()))
    arguments = (random_sequence(prior.grids, 1), network_labels(prior, None, 1), context)
    if order is not None:
        arguments += (torch.tensor([order]),)
    grid, place = position_in_grid(prior.grids, position)
    prior(*arguments)[grid][0, place].square().sum().backward()
    for hook in hooks:
        hook.remove()
    return {
        (kind, start + i)
        for kind, start, output in outputs
        if output.grad is not None
        for i in output.grad.abs().sum(dim=-1).flatten().nonzero()[:, 0].tolist()
    }


def _context_embeddings(prior):
    if not isinstance(prior.spec.context, tuple) or not prior.spec.context:
        return []
    if prior.config.kind == "transformer":
        return prior.context_embedding.values
    return prior.context_network.embeddings


def expected_influences(prior, position, order=None):
    """What `influences` should find: for a transformer, everything before the position."""
    if prior.config.kind == "pixelcnn":
        return _receptive_field(prior, position)
    order = order or prediction_order("transformer", prior.grids)
    earlier = {("code", p) for p in order[: order.index(position)]}
    return earlier | {("context", p) for p in range(_context_length(prior.spec.context))}


def _context_length(spec):
    grids = [spec] if isinstance(spec, FeatureSpec) else spec
    return sum(grid.height * grid.width for grid in grids)


def _union(sets):
    return set().union(*sets)


def _receptive_field(prior, position):
    """The wiring of a PixelCNN's layers on sets of names instead of numbers."""
    config, grids = prior.config, prior.grids
    height, width, length = grids[0].height, grids[0].width, grids[0].num_codes
    cells = [(i, j) for i in range(height) for j in range(width)]
    reach = config.kernel_size // 2
    near = range(-reach, reach + 1)
    context = _context_cells(prior.spec.context, height, width, reach)
    codes = {
        (i, j): {("code", g * length + i * width + j) for g in range(len(grids))} for i, j in cells
    }
    vertical = horizontal = codes
    known = {c: set() for c in cells}
    for layer in range(config.num_layers):
        current = 0 if layer else -1  # the first layer sees codes and must leave its own out
        above = {
            (i, j): context[i, j]
            | _union(
                vertical.get((i + a, j + b), set())
                for a in range(-reach, current + 1)
                for b in near
            )
            for i, j in cells
        }
        gated = {
            (i, j): above[i, j]
            | _union(horizontal.get((i, j + b), set()) for b in range(-reach, current + 1))
            for i, j in cells
        }
        vertical = above
        horizontal = {c: gated[c] | (horizontal[c] if layer else set()) for c in cells}
        known = {c: known[c] | gated[c] for c in cells}
        if config.attention_every and (layer + 1) % config.attention_every == 0:
            attended = {
                c: _union(horizontal[q] for q in cells[: n + 1]) for n, c in enumerate(cells)
            }
            horizontal = {c: horizontal[c] | attended[c] for c in cells}
            known = {c: known[c] | attended[c] for c in cells}
    grid, place = position_in_grid(grids, position)
    return known[cells[place]] | {("code", g * length + place) for g in range(grid)}


def _context_cells(spec, height, width, reach):
    """Context positions that the features of each cell of the grid depend on."""
    cells = {(i, j): set() for i in range(height) for j in range(width)}
    start = 0
    for grid in [GridSpec(spec.height, spec.width, 1)] if isinstance(spec, FeatureSpec) else spec:
        for i, j in cells:
            # A cell of the context belongs to a cell of the grid where the two overlap.
            rows = range(i * grid.height // height, -(-(i + 1) * grid.height // height))
            columns = range(j * grid.width // width, -(-(j + 1) * grid.width // width))
            cells[i, j] |= {("context", start + r * grid.width + c) for r in rows for c in columns}
        start += grid.num_codes
    two_convolutions = range(-2 * reach, 2 * reach + 1)
    return {
        (i, j): _union(
            cells.get((i + a, j + b), set()) for a in two_convolutions for b in two_convolutions
        )
        for i, j in cells
    }
