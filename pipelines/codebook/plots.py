"""Pictures of a codebook, by matplotlib without a display.

Colours are those of Okabe and Ito, which colour-blind people tell apart; what they say is also said
by shape, order or text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.codebook.statistics import CodebookStatistics, GridStatistics
from pipelines.files.images import viewable
from stage1_vqvae.model import VQVAE

_BLUE, _VERMILLION, _GRAY = "#0072B2", "#D55E00", "#999999"
_FRAME = np.array([0xD5, 0x5E, 0x00], dtype=np.uint8)  # vermillion
_DPI = 120
# Codes shown decoded at most, and pixels and positions of their tiles per side at most.
_MAX_TILES, _MAX_TILE, _MAX_SIDE = 1024, 64, 8
_SHEET_WIDTH = 800  # small sheets are enlarged, each pixel to a square, to about this
_GAP = 2  # pixels of frame around each tile
_DECODED_AT_ONCE = 64
# Positions of a grid whose entropy is written into the map.
_MAX_WRITTEN = 144


def save_figures(directory: Path, model: VQVAE, statistics: CodebookStatistics) -> list[Path]:
    """Writes usage, decoded codes, map and entropy per position of each grid as PNG files.

    Args:
        directory: Where to; must exist.
        model: In evaluation mode.
        statistics: What `measure_codebook` gave for the model.

    Returns:
        The files: `usage.png`, `decoded.png`, `map.png`, `entropy.png`; with several grids
        `usage-0.png` and so on.
    """
    paths = []
    for i, grid in enumerate(statistics.grids):
        several = len(statistics.grids) > 1
        title = f"grid {i}: " if several else ""
        figures = {
            "usage": usage_figure(grid, title),
            "decoded": decoded_figure(model, statistics, i, title),
            "map": map_figure(grid, title),
            "entropy": entropy_figure(grid, title),
        }
        for name, figure in figures.items():
            paths.append(directory / (f"{name}-{i}.png" if several else f"{name}.png"))
            figure.savefig(paths[-1], dpi=_DPI)
    return paths


def usage_figure(grid: GridStatistics, title: str = "") -> Figure:
    """The share of positions that each code takes, by falling share, on a logarithmic axis."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    shares = np.sort(grid.counts)[::-1][: grid.num_used] / grid.num_positions
    axes.plot(np.arange(1, grid.num_used + 1), shares, color=_BLUE, label="share of the code")
    axes.fill_between(
        np.arange(1, grid.num_used + 1), shares, shares.min() / 2, color=_BLUE, alpha=0.2
    )
    axes.axhline(
        1 / grid.codebook_size,
        color="black",
        linestyle="--",
        label=f"all codes alike: 1 / {grid.codebook_size:,}",
    )
    if grid.num_dead:
        axes.axvspan(
            grid.num_used + 0.5,
            grid.codebook_size + 0.5,
            facecolor="none",
            edgecolor=_VERMILLION,
            hatch="//",
            label=f"never chosen: {grid.num_dead:,} codes",
        )
    axes.set_yscale("log")
    axes.set_xlim(0.5, grid.codebook_size + 0.5)
    axes.set_xlabel("code, by falling frequency")
    axes.set_ylabel("share of all positions")
    axes.set_title(
        f"{title}usage {grid.usage:.1%}, perplexity {grid.perplexity:.1f} of {grid.codebook_size:,}"
    )
    axes.legend()
    return figure


def map_figure(grid: GridStatistics, title: str = "") -> Figure:
    """Code vectors and a sample of z_e in the plane where the two together spread most."""
    codes, sample, explained = project(grid.vectors, grid.sample)
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(
        sample[:, 0],
        sample[:, 1],
        s=3,
        color=_GRAY,
        linewidths=0,
        label=f"z_e, {len(sample):,} positions",
    )
    used = grid.counts > 0
    # Area by frequency; a code of mean frequency is drawn with 40 square points.
    area = 40 * grid.counts[used] * grid.codebook_size / grid.num_positions
    axes.scatter(
        codes[used, 0],
        codes[used, 1],
        s=np.clip(area, 4, 400),
        facecolor=_BLUE,
        edgecolor="white",
        linewidths=0.5,
        alpha=0.8,
        label=f"used codes, {grid.num_used:,} (area: frequency)",
    )
    if grid.num_dead:
        axes.scatter(
            codes[~used, 0],
            codes[~used, 1],
            s=24,
            marker="x",
            color=_VERMILLION,
            label=f"codes never chosen, {grid.num_dead:,}",
        )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel(f"first principal component ({explained[0]:.0%} of the variance)")
    axes.set_ylabel(f"second principal component ({explained[1]:.0%} of the variance)")
    axes.set_title(f"{title}map of the codebook ({grid.vectors.shape[1]} dimensions)")
    axes.legend()
    return figure


def entropy_figure(grid: GridStatistics, title: str = "") -> Figure:
    """The entropy of the codes at each position, as an image of the grid."""
    height, width = grid.position_entropy.shape
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.add_subplot()
    most = math.log2(grid.codebook_size)
    image = axes.imshow(grid.position_entropy, cmap="cividis", vmin=0, vmax=most)
    figure.colorbar(
        image, label=f"entropy in bits, at most log2({grid.codebook_size:,}) = {most:.1f}"
    )
    if height * width <= _MAX_WRITTEN:
        for (row, column), bits in np.ndenumerate(grid.position_entropy):
            colour = "white" if bits < most / 2 else "black"
            axes.text(column, row, f"{bits:.1f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(0, width, -(-width // 16)))
    axes.set_yticks(range(0, height, -(-height // 16)))
    axes.set_xlabel("column of the grid")
    axes.set_ylabel("row of the grid")
    axes.set_title(
        f"{title}entropy per position, {grid.position_entropy.mean():.2f} bits on average; "
        f"constant: {grid.constant_positions} of {height * width}"
    )
    return figure


def decoded_figure(
    model: VQVAE, statistics: CodebookStatistics, index: int, title: str = ""
) -> Figure:
    """What each code of one grid decodes to, by falling frequency, pixel by pixel."""
    grid = statistics.grids[index]
    order = np.argsort(-grid.counts, kind="stable")[:_MAX_TILES]
    images = viewable(np.concatenate(list(_decode(model, statistics, index, order))))
    columns = math.ceil(math.sqrt(len(order) * images.shape[2] / images.shape[3]))
    sheet = tile_sheet(images, grid.counts[order] == 0, columns)
    rows, tile = -(-len(order) // columns), sheet.shape[0] // -(-len(order) // columns)
    left, right, bottom, top = 100, 20, 20, 60  # pixels around the sheet
    width, height = max(sheet.shape[1], 600) + left + right, sheet.shape[0] + bottom + top
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    # Axes of exactly the sheet's size: every pixel of the sheet is one of the file.
    axes = figure.add_axes(
        (left / width, bottom / height, sheet.shape[1] / width, sheet.shape[0] / height)
    )
    axes.imshow(sheet, interpolation="nearest", aspect="auto")
    step = max(1, -(-40 // tile))  # rows between labels, so that they do not touch
    axes.set_xticks([])
    axes.set_yticks([(row + 0.5) * tile - 0.5 for row in range(0, rows, step)])
    axes.set_yticklabels([str(row * columns + 1) for row in range(0, rows, step)])
    axes.tick_params(length=0)  # a tick's end would cover pixels
    axes.set_ylabel("rank by frequency")
    for spine in axes.spines.values():
        spine.set_visible(False)
    shown = "" if len(order) == grid.codebook_size else f"the {len(order):,} most frequent of "
    dead = int((grid.counts[order] == 0).sum())
    figure.text(
        left / width,
        1 - 12 / height,
        f"{title}what {shown}{grid.codebook_size:,} codes decode to, each alone on its grid,\n"
        f"by falling frequency; framed, at the end: {dead:,} codes never chosen",
        va="top",
    )
    return figure


def tile_sheet(
    images: NDArray[np.uint8], framed: NDArray[np.bool_], columns: int
) -> NDArray[np.uint8]:
    """Arranges images in rows on white, those of `framed` in a frame.

    Args:
        images: uint8 (N, C, H, W), C = 1 or 3.
        framed: bool (N,).
        columns: Tiles per row.

    Returns:
        uint8 RGB (H', W', 3). Each tile is its image, enlarged by a whole number if the sheet
        is small, with a frame of `_GAP` pixels on each side.
    """
    scale = max(1, _SHEET_WIDTH // (columns * (images.shape[3] + 2 * _GAP)))
    images = images.repeat(scale, axis=2).repeat(scale, axis=3)
    height, width = images.shape[2] + 2 * _GAP, images.shape[3] + 2 * _GAP
    rows = -(-len(images) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, dtype=np.uint8)
    for i, (image, frame) in enumerate(zip(images, framed, strict=True)):
        top, left = i // columns * height, i % columns * width
        if frame:
            sheet[top : top + height, left : left + width] = _FRAME
        inside = sheet[top + _GAP : top + height - _GAP, left + _GAP : left + width - _GAP]
        inside[:] = image.transpose(1, 2, 0)  # a gray image goes to all three channels
    return sheet


def project(
    vectors: NDArray[np.float32], sample: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Principal components of code vectors and z_e together, each set with the same weight.

    With equal weights, a drift between the two shows in the plane, whichever is more numerous.

    Args:
        vectors: (K, D).
        sample: (S, D).

    Returns:
        (K, 2), (S, 2) and (2,), the share of the variance along either axis; a second axis of
        zeros where D is 1.
    """
    sets = [np.asarray(points, dtype=np.float64) for points in (vectors, sample)]
    centre = sum(points.mean(axis=0) for points in sets) / 2
    sets = [points - centre for points in sets]
    covariance = sum(points.T @ points / len(points) for points in sets) / 2
    variances, axes = np.linalg.eigh(np.atleast_2d(covariance))  # ascending
    axes, variances = axes[:, ::-1][:, :2], variances[::-1].clip(min=0)
    if axes.shape[1] == 1:
        axes, variances = np.pad(axes, ((0, 0), (0, 1))), np.pad(variances, (0, 1))
    codes, z_e = (points @ axes for points in sets)
    return codes, z_e, variances[:2] / max(variances.sum(), np.finfo(np.float64).tiny)


def _decode(
    model: VQVAE, statistics: CodebookStatistics, index: int, codes: NDArray[np.int64]
) -> Iterator[NDArray[np.uint8]]:
    """Small images of grids full of one code; the other grids hold their most frequent one."""
    factor = model.config.downsampling
    side = max(1, min(_MAX_SIDE, _MAX_TILE // factor))
    shapes = [tuple(min(side, n) for n in grid.position_entropy.shape) for grid in statistics.grids]
    common = [int(grid.counts.argmax()) for grid in statistics.grids]
    for start in range(0, len(codes), _DECODED_AT_ONCE):
        part = torch.from_numpy(codes[start : start + _DECODED_AT_ONCE])
        grids = [
            torch.full((len(part), *shape), code)
            for shape, code in zip(shapes, common, strict=True)
        ]
        grids[index] = part[:, None, None].expand(-1, *shapes[index]).contiguous()
        yield model.decode(tuple(grids)).cpu().numpy()
