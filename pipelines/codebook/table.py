"""Codebook statistics as lines of text."""

from __future__ import annotations

import math

from pipelines.codebook.statistics import CodebookStatistics, GridStatistics


def table(statistics: CodebookStatistics) -> str:
    """Formats the main statistics, a line each and a column per grid."""
    columns = [_cells(grid) for grid in statistics.grids]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    if len(columns) > 1:
        rows.insert(0, ("", *(f"grid {i}" for i in range(len(columns)))))
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [
        "  ".join([f"  {row[0]:<{widths[0]}}", *map(str.rjust, row[1:], widths[1:])])
        for row in rows
    ]
    lines += [
        f"  error / variance of z_e: {_ratio(statistics.relative_error)}",
        f"  length of z_e: mean {statistics.mean_norm:.3g}, maximum {statistics.max_norm:.3g}",
    ]
    return "\n".join(lines)


def _cells(grid: GridStatistics) -> dict[str, str]:
    height, width = grid.position_entropy.shape
    bits = grid.position_entropy
    return {
        "codes": f"{grid.codebook_size:,} of {grid.vectors.shape[1]} dimensions",
        "positions per code": f"{grid.num_positions / grid.codebook_size:,.1f}",
        "usage": f"{grid.usage:.1%}",
        "dead codes": f"{grid.num_dead:,}",
        "duplicate codes (used, dead)": f"{grid.used_duplicates:,}, {grid.dead_duplicates:,}",
        "perplexity": f"{grid.perplexity:.1f}",
        "entropy, bits per code": f"{grid.entropy:.2f} of {math.log2(grid.codebook_size):.2f}",
        "entropy per position, minimum to maximum": f"{bits.min():.2f} to {bits.max():.2f}",
        "constant positions": f"{grid.constant_positions} of {height}x{width}",
        "share of the most frequent code, of ten": f"{grid.top_share(1):.1%}, "
        f"{grid.top_share(10):.1%}",
        "error / variance of what is quantized": _ratio(grid.relative_error),
        "lag of the codes behind z_e / variance": _ratio(grid.relative_lag),
        "distance of z_e / of the codes, from their mean": _ratio(grid.reach),
        "distance of dead codes / of z_e, from its mean": _ratio(grid.dead_distance),
        "median distance to the nearest code": _ratio(grid.neighbour_distance),
    }


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
