"""Statistics of a codebook over a whole split: per code, per grid position, per grid.

Images are streamed: memory grows with the codebook and the grid (a count per position and code,
4 bytes each), not with the number of images. Sums are float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from pipelines.codebook.duplicates import find_duplicates
from stage1_vqvae.model import VQVAE
from stage1_vqvae.quantizers.usage import entropy_bits

# Positions kept for the map of the codebook.
_SAMPLE = 4096
# Squares this much smaller than those they were computed from are rounding of float64.
_ROUNDING = 1e-12
# Fields and properties that are recorded unchanged.
_RECORDED = (
    *("codebook_size", "num_positions", "usage", "num_dead", "perplexity", "entropy", "variance"),
    *("error", "relative_error", "lag", "relative_lag", "reach", "dead_distance"),
    *("neighbour_distance", "constant_positions", "used_duplicates", "dead_duplicates"),
)


@dataclass(frozen=True, eq=False)
class GridStatistics:
    """The codes of one grid over a whole split.

    t is the grid's input: z_e in code space, for a product quantizer its group of channels, for a
    residual quantizer the residual of the grids before. E is over all positions of all images.
    """

    vectors: NDArray[np.float32]
    """(K, D): the code vectors."""
    counts: NDArray[np.int64]
    """(K,): number of positions that chose each code."""
    position_entropy: NDArray[np.float64]
    """(h, w): order-0 entropy of the codes at each position, in bits."""
    variance: float
    """E||t - E t||^2, the total variance; 0 where t does not vary."""
    error: float
    """E||t - e||^2, e the vector of the chosen code."""
    lag: float
    """E||E[t | code] - e||^2: the part of `error` that is removed by moving every code to the mean
    of its t. Near 0 in a codebook that follows z_e."""
    reach: float | None
    """Rms distance of t from the mean code vector, relative to that of the code vectors; None if
    all code vectors are equal."""
    dead_distance: float | None
    """Rms distance of unused vectors from E t, in units of sqrt(variance); None without unused
    vectors or variance."""
    neighbour_distance: float | None
    """Median distance of a used code to the nearest other used one; None with fewer than two."""
    duplicate_of: NDArray[np.int64]
    """(K,): the code that each code duplicates, or -1; see `find_duplicates`."""
    sample: NDArray[np.float32]
    """(S, D): t at random positions."""

    @property
    def codebook_size(self) -> int:
        """The number of codes, K."""
        return len(self.counts)

    @property
    def num_positions(self) -> int:
        """Number of positions of all images."""
        return int(self.counts.sum())

    @property
    def num_dead(self) -> int:
        """Number of codes that the split never uses."""
        return int((self.counts == 0).sum())

    @property
    def num_used(self) -> int:
        """Number of codes that the split uses."""
        return self.codebook_size - self.num_dead

    @property
    def usage(self) -> float:
        """Fraction of the codes that the split uses."""
        return self.num_used / self.codebook_size

    @property
    def entropy(self) -> float:
        """Order-0 entropy of the codes, in bits per code."""
        return entropy_bits(torch.from_numpy(self.counts))

    @property
    def perplexity(self) -> float:
        """Exp of the entropy: the effective number of codes, in [1, K]."""
        return float(2**self.entropy)

    @property
    def used_duplicates(self) -> int:
        """Number of used codes that duplicate a more frequent one."""
        return int(((self.duplicate_of >= 0) & (self.counts > 0)).sum())

    @property
    def dead_duplicates(self) -> int:
        """Number of unused codes that duplicate another one."""
        return int(((self.duplicate_of >= 0) & (self.counts == 0)).sum())

    @property
    def constant_positions(self) -> int:
        """Number of positions with the same code in every image."""
        return int((self.position_entropy == 0).sum())

    @property
    def relative_error(self) -> float | None:
        """`error` / `variance`; None if t is constant."""
        return self.error / self.variance if self.variance else None

    @property
    def relative_lag(self) -> float | None:
        """`lag` / `variance`; None if t is constant."""
        return self.lag / self.variance if self.variance else None

    def top_share(self, codes: int) -> float:
        """Returns the share of all positions with one of the `codes` most frequent codes."""
        return float(np.sort(self.counts)[::-1][:codes].sum() / self.num_positions)

    def record(self) -> dict[str, Any]:
        """Returns all statistics as JSON values; distances in units of z_e, entropies in bits."""
        repeats = np.flatnonzero(self.duplicate_of >= 0)
        return {name: getattr(self, name) for name in _RECORDED} | {
            "top_1_share": self.top_share(1),
            "top_10_share": self.top_share(10),
            "duplicates": [[int(code), int(self.duplicate_of[code])] for code in repeats],
            "position_entropy": self.position_entropy.tolist(),
            "counts": self.counts.tolist(),
        }


@dataclass(frozen=True, eq=False)
class CodebookStatistics:
    """All grids over a whole split, and the quantization as a whole."""

    grids: tuple[GridStatistics, ...]
    """One per grid of codes, coarse to fine."""
    num_images: int
    """Images of the split."""
    variance: float
    """E||t - E t||^2 of z_e in code space."""
    error: float
    """E||t - z_q||^2, z_q decoded from all grids."""
    mean_norm: float
    """Mean Euclidean length of z_e."""
    max_norm: float
    """Largest Euclidean length of a z_e."""

    @property
    def relative_error(self) -> float | None:
        """`error` / `variance`; None if z_e is constant."""
        return self.error / self.variance if self.variance else None

    def record(self) -> dict[str, Any]:
        """Returns all statistics as JSON values."""
        names = ("num_images", "variance", "error", "relative_error", "mean_norm", "max_norm")
        values = {name: getattr(self, name) for name in names}
        return values | {"grids": [grid.record() for grid in self.grids]}


@torch.no_grad()
def measure_codebook(
    model: VQVAE, batches: Iterable[Tensor], num_images: int
) -> CodebookStatistics:
    """Measures the codebook of `model` on every image of `batches`.

    Args:
        model: Is put into evaluation mode and left there.
        batches: uint8 (B, C, H, W) each, on the model's device; B does not matter.
        num_images: Number of images in all batches.

    Raises:
        ValueError: There are no images, or not `num_images`.
    """
    model.eval()
    vectors = [v.detach().cpu() for v in model.quantizer.code_vectors()]
    grids: list[_GridSums] = []
    whole = _Moments(torch.zeros(model.quantizer.codebook_dim, dtype=torch.float64))
    norms, largest, seen = 0.0, 0.0, 0
    for images in batches:
        z_e = model.encode_features(images).float()
        codes = model.quantizer.encode(z_e)
        t = _rows(model.quantizer.to_code_space(z_e))  # (N, D)
        if not grids:
            positions = num_images * codes[0][0].numel()
            size, generator = min(positions, _SAMPLE), np.random.default_rng(0)
            kept = generator.choice(positions, size, replace=False, shuffle=False)
            grids = [
                _GridSums(v, (g.shape[1], g.shape[2]), np.sort(kept))
                for v, g in zip(vectors, codes, strict=True)
            ]
        whole.add(t, _rows(model.quantizer.decode(codes)))
        for grid, target, chosen in zip(grids, _targets(t, codes, vectors), codes, strict=True):
            grid.add(target, chosen.cpu())
        lengths = _rows(z_e).norm(dim=1)
        norms += lengths.sum().item()
        largest = max(largest, lengths.max().item())
        seen += len(images)
    if not seen or seen != num_images:
        raise ValueError(
            f"the codebook must be measured on at least one image and on all {num_images} that "
            f"were announced, got {seen}"
        )
    return CodebookStatistics(
        grids=tuple(grid.statistics() for grid in grids),
        num_images=num_images,
        variance=whole.variance,
        error=whole.error / whole.count,
        mean_norm=norms / whole.count,
        max_norm=largest,
    )


class _Moments:
    """Running sums of points t around a centre, and of their distances from z_q."""

    def __init__(self, centre: Tensor) -> None:
        self.count = 0
        self.error = 0.0
        self.squares = 0.0  # of the distances from the centre
        self._centre = centre  # float64 (D,)
        self._sum = torch.zeros_like(centre)

    def add(self, t: Tensor, z_q: Tensor) -> None:
        """Adds float64 (N, D) each."""
        centred = t - self._centre
        self.count += len(t)
        self.error += (t - z_q).square().sum().item()
        self.squares += centred.square().sum().item()
        self._sum += centred.sum(dim=0)

    @property
    def mean(self) -> Tensor:
        """Mean of t relative to the centre, (D,)."""
        return self._sum / self.count

    @property
    def variance(self) -> float:
        """The total variance, 0 if it is lost in rounding."""
        mean_square = self.squares / self.count
        variance = mean_square - self.mean.square().sum().item()
        return variance if variance > _ROUNDING * mean_square else 0.0


class _GridSums:
    """Running sums over the positions of one grid."""

    def __init__(self, vectors: Tensor, shape: tuple[int, int], kept: NDArray[np.int64]) -> None:
        self._vectors = vectors.double()  # (K, D)
        self._centre = self._vectors.mean(dim=0)
        self._shape = shape
        self._moments = _Moments(self._centre)
        self._table = torch.zeros(shape[0] * shape[1], len(vectors), dtype=torch.int32)
        self._sums = torch.zeros_like(self._vectors)  # of the t that chose each code
        self._kept = kept  # positions of the sample, ascending
        self._sample: list[Tensor] = []

    def add(self, t: Tensor, grid: Tensor) -> None:
        """Adds float64 (N, D) and the int64 grid (B, h, w) of their codes, N = B*h*w."""
        codes = grid.flatten()
        start = self._moments.count
        first, last = np.searchsorted(self._kept, [start, start + len(t)])
        self._sample.append(t[torch.from_numpy(self._kept[first:last] - start)].float())
        self._moments.add(t, self._vectors[codes])
        self._sums.index_add_(0, codes, t - self._centre)
        positions = torch.arange(len(self._table)).repeat(len(grid))
        keys = positions * self._table.shape[1] + codes
        self._table.view(-1).scatter_add_(0, keys, torch.ones_like(keys, dtype=torch.int32))

    def statistics(self) -> GridStatistics:
        """Returns the statistics of all sums."""
        moments, centred = self._moments, self._vectors - self._centre
        counts = self._table.sum(dim=0)  # (K,), int64
        means = self._sums / counts.clamp(min=1)[:, None]
        lag = float((counts * (means - centred).square().sum(dim=1)).sum()) / moments.count
        radius = centred.square().sum(dim=1).mean().sqrt().item()
        variance, error = moments.variance, moments.error / moments.count
        dead = centred[counts == 0]
        dead_square = float((dead - moments.mean).square().sum(dim=1).mean())
        entropies = [entropy_bits(row) for row in self._table]
        duplicate_of, neighbour_distance = find_duplicates(self._vectors, counts, error)
        return GridStatistics(
            vectors=self._vectors.float().numpy(),
            counts=counts.numpy(),
            position_entropy=np.reshape(entropies, self._shape),
            variance=variance,
            error=error,
            lag=lag,
            reach=math.sqrt(moments.squares / moments.count) / radius if radius else None,
            dead_distance=math.sqrt(dead_square / variance) if len(dead) and variance else None,
            neighbour_distance=neighbour_distance,
            duplicate_of=duplicate_of,
            sample=torch.cat(self._sample).numpy(),
        )


def _targets(t: Tensor, codes: tuple[Tensor, ...], vectors: list[Tensor]) -> list[Tensor]:
    """Returns the inputs of the grids, float64 (N, D_i): groups of channels, or residuals."""
    widths = [v.shape[1] for v in vectors]
    if sum(widths) == t.shape[1]:
        return list(torch.split(t, widths, dim=1))
    targets = [t]
    for grid, v in zip(codes[:-1], vectors, strict=False):
        targets.append(targets[-1] - v.double()[grid.flatten().cpu()])
    return targets


def _rows(features: Tensor) -> Tensor:
    """Reshapes (B, D, h, w) to float64 (B*h*w, D) on the CPU (MPS has no float64)."""
    return rearrange(features, "b d h w -> (b h w) d").cpu().double()
