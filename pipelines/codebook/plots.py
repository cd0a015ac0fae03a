"""Plots of a codebook; colour, distinct for colour-blind people, is never the only difference."""

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
# Maximum number of decoded codes, and of pixels and positions per side of their tiles.
_MAX_TILES, _MAX_TILE, _MAX_SIDE = 1024, 64, 8
_SHEET_WIDTH = 800  # small sheets are enlarged to about this, by a whole number
_GAP = 2  # pixels around each tile
_DECODED_AT_ONCE = 64
# Maximum number of positions whose entropy is written into the plot.
_MAX_WRITTEN = 144


def save_plots(directory: Path, model: VQVAE, statistics: CodebookStatistics) -> list[Path]:
    """Writes plots of usage, decoded codes, map and entropy of each grid as PNG files.

    Returns:
        The paths: `usage.png`, `decoded.png`, `map.png`, `entropy.png`; with several grids
        `usage-0.png` and so on.
    """
    paths, several = [], len(statistics.grids) > 1
    for i, grid in enumerate(statistics.grids):
        title = f"grid {i}: " if several else ""
        figures = {
            "usage": plot_usage(grid, title),
            "decoded": plot_decoded(model, statistics, i, title),
            "map": plot_map(grid, title),
            "entropy": plot_entropy(grid, title),
        }
        for name, figure in figures.items():
            paths.append(directory / (f"{name}-{i}.png" if several else f"{name}.png"))
            figure.savefig(paths[-1], dpi=_DPI)
    return paths


def plot_usage(grid: GridStatistics, title: str = "") -> Figure:
    """Plots the share of positions of each code, in decreasing order, on a logarithmic axis."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    size, ranks = grid.codebook_size, np.arange(1, grid.num_used + 1)
    shares = np.sort(grid.counts)[::-1][: grid.num_used] / grid.num_positions
    axes.plot(ranks, shares, color=_BLUE, label="share of the code")
    axes.fill_between(ranks, shares, shares.min() / 2, color=_BLUE, alpha=0.2)
    axes.axhline(1 / size, color="black", linestyle="--", label=f"uniform: 1 / {size:,}")
    if grid.num_dead:
        axes.axvspan(
            grid.num_used + 0.5,
            size + 0.5,
            facecolor="none",
            edgecolor=_VERMILLION,
            hatch="//",
            label=f"never used: {grid.num_dead:,} codes",
        )
    axes.set_yscale("log")
    axes.set_xlim(0.5, size + 0.5)
    axes.set_xlabel("code, by decreasing frequency")
    axes.set_ylabel("share of all positions")
    axes.set_title(f"{title}usage {grid.usage:.1%}, perplexity {grid.perplexity:.1f} of {size:,}")
    axes.legend()
    return figure


def plot_map(grid: GridStatistics, title: str = "") -> Figure:
    """Plots code vectors and a sample of z_e in their first two principal components."""
    codes, sample, explained = project(grid.vectors, grid.sample)
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.add_subplot()
    positions = f"z_e, {len(sample):,} positions"
    axes.scatter(sample[:, 0], sample[:, 1], s=3, color=_GRAY, linewidths=0, label=positions)
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
        dead = f"codes never used, {grid.num_dead:,}"
        x, y = codes[~used].T
        axes.scatter(x, y, s=24, marker="x", color=_VERMILLION, label=dead)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel(f"first principal component ({explained[0]:.0%} of the variance)")
    axes.set_ylabel(f"second principal component ({explained[1]:.0%} of the variance)")
    axes.set_title(f"{title}map of the codebook ({grid.vectors.shape[1]} dimensions)")
    axes.legend()
    return figure


def plot_entropy(grid: GridStatistics, title: str = "") -> Figure:
    """Plots the entropy of the codes at each position."""
    height, width = grid.position_entropy.shape
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.add_subplot()
    most = math.log2(grid.codebook_size)
    image = axes.imshow(grid.position_entropy, cmap="cividis", vmin=0, vmax=most)
    bound = f"at most log2({grid.codebook_size:,}) = {most:.1f}"
    figure.colorbar(image, label=f"entropy in bits, {bound}")
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


def plot_decoded(
    model: VQVAE, statistics: CodebookStatistics, index: int, title: str = ""
) -> Figure:
    """Plots the decoded codes of one grid, by decreasing frequency."""
    grid = statistics.grids[index]
    order = np.argsort(-grid.counts, kind="stable")[:_MAX_TILES]
    images = viewable(np.concatenate(list(_decode(model, statistics, index, order))))
    columns = math.ceil(math.sqrt(len(order) * images.shape[2] / images.shape[3]))
    sheet = tile_sheet(images, grid.counts[order] == 0, columns)
    rows = -(-len(order) // columns)
    tile = sheet.shape[0] // rows
    left, right, bottom, top = 100, 20, 20, 60  # pixels around the sheet
    width, height = max(sheet.shape[1], 600) + left + right, sheet.shape[0] + bottom + top
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    # Axes of exactly the sheet's size: one pixel of the file per pixel of the sheet.
    axes = figure.add_axes(
        (left / width, bottom / height, sheet.shape[1] / width, sheet.shape[0] / height)
    )
    axes.imshow(sheet, interpolation="nearest", aspect="auto")
    step = max(1, -(-40 // tile))  # rows between labels, which must not overlap
    axes.set_xticks([])
    labelled = range(0, rows, step)
    labels = [str(row * columns + 1) for row in labelled]
    axes.set_yticks([(row + 0.5) * tile - 0.5 for row in labelled], labels)
    axes.tick_params(length=0)  # ticks would cover pixels
    axes.set_ylabel("rank by frequency")
    for spine in axes.spines.values():
        spine.set_visible(False)
    shown = "" if len(order) == grid.codebook_size else f"the {len(order):,} most frequent of "
    dead = int((grid.counts[order] == 0).sum())
    figure.text(
        left / width,
        1 - 12 / height,
        f"{title}{shown}{grid.codebook_size:,} decoded codes, each in every position of a grid,\n"
        f"by decreasing frequency; framed, at the end: {dead:,} codes never used",
        va="top",
    )
    return figure


def tile_sheet(
    images: NDArray[np.uint8], framed: NDArray[np.bool_], columns: int
) -> NDArray[np.uint8]:
    """Arranges uint8 images (N, C, H, W), C = 1 or 3, in rows on white, with frames around some.

    Returns:
        uint8 RGB (H', W', 3). Images are enlarged by a whole number if the sheet is small, with
        `_GAP` pixels on each side.
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
    """Computes principal components of code vectors (K, D) and z_e (S, D) together.

    Equal weights of the two make a drift visible, whatever their numbers.

    Returns:
        (K, 2), (S, 2) and (2,), the share of the variance of each component; zeros for a
        second one if D is 1.
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
    """Decodes small grids of one code; other grids hold their most frequent code."""
    factor = model.config.downsampling
    side = max(1, min(_MAX_SIDE, _MAX_TILE // factor))
    shapes = [tuple(min(side, n) for n in grid.position_entropy.shape) for grid in statistics.grids]
    common = [int(grid.counts.argmax()) for grid in statistics.grids]
    for start in range(0, len(codes), _DECODED_AT_ONCE):
        part = torch.from_numpy(codes[start : start + _DECODED_AT_ONCE])
        filled = zip(shapes, common, strict=True)
        grids = [torch.full((len(part), *shape), code) for shape, code in filled]
        grids[index] = part[:, None, None].expand(-1, *shapes[index]).contiguous()
        yield model.decode(tuple(grids)).cpu().numpy()
