"""What a whole split says about a codebook: figures per code, per grid position, per grid.

Everything is streamed: memory grows with the codebook and the grid (a count per position and code,
4 bytes each), never with the number of images. Sums are float64.
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

# Positions kept for pictures.
_SAMPLE = 4096
# Squares this much smaller than those they were computed from are rounding of float64.
_ROUNDING = 1e-12
# What a grid's record holds as it is.
_GRID_FIGURES = (
    *("codebook_size", "num_positions", "usage", "num_dead", "perplexity", "entropy", "spread"),
    *("error", "relative_error", "lag", "relative_lag", "reach", "dead_distance"),
    *("neighbour_distance", "constant_positions", "used_duplicates", "dead_duplicates"),
)


@dataclass(frozen=True, eq=False)
class GridStatistics:
    """The codes of one grid over a whole split.

    t is what the grid quantizes: z_e in code space, for a product quantizer its group of channels,
    for a residual quantizer what the grids before left over. E is over all positions of all images.
    """

    vectors: NDArray[np.float32]
    """(K, D): what each code stands for."""
    counts: NDArray[np.int64]
    """(K,): how often each code was chosen."""
    position_entropy: NDArray[np.float64]
    """(h, w): order-0 entropy of the codes at each position, in bits."""
    spread: float
    """E||t - E t||^2, the total variance; 0 where t does not vary."""
    error: float
    """E||t - e||^2, e the vector of the chosen code."""
    lag: float
    """E||E[t | code] - e||^2: the part of `error` that would go if every code moved to the mean of
    the t that choose it. Near 0 in a codebook that follows z_e."""
    reach: float | None
    """Rms distance of t from the mean code vector, in units of that of the code vectors; None where
    all code vectors are one."""
    dead_distance: float | None
    """Rms distance of the vectors never chosen from E t, in units of sqrt(spread); None without
    such vectors or spread."""
    neighbour_distance: float | None
    """Median distance of a used code to the nearest other used one; None with fewer than two."""
    duplicate_of: NDArray[np.int64]
    """(K,): a code that is at least as frequent and says the same, or -1; see `find_duplicates`."""
    sample: NDArray[np.float32]
    """(S, D): t at random positions, for pictures."""

    @property
    def codebook_size(self) -> int:
        """K."""
        return len(self.counts)

    @property
    def num_positions(self) -> int:
        """Positions of all images."""
        return int(self.counts.sum())

    @property
    def num_dead(self) -> int:
        """Codes that the split never chose."""
        return int((self.counts == 0).sum())

    @property
    def num_used(self) -> int:
        """Codes that the split chose at least once."""
        return self.codebook_size - self.num_dead

    @property
    def usage(self) -> float:
        """Fraction of the codes that the split ever chose."""
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
        """Codes in use that repeat a more frequent one."""
        return int(((self.duplicate_of >= 0) & (self.counts > 0)).sum())

    @property
    def dead_duplicates(self) -> int:
        """Codes never chosen that repeat another one."""
        return int(((self.duplicate_of >= 0) & (self.counts == 0)).sum())

    @property
    def constant_positions(self) -> int:
        """Positions where every image has the same code."""
        return int((self.position_entropy == 0).sum())

    @property
    def relative_error(self) -> float | None:
        """`error` in units of `spread`; None where t does not vary."""
        return self.error / self.spread if self.spread else None

    @property
    def relative_lag(self) -> float | None:
        """`lag` in units of `spread`; None where t does not vary."""
        return self.lag / self.spread if self.spread else None

    def top_share(self, codes: int) -> float:
        """Share of all positions that the `codes` most frequent codes take."""
        return float(np.sort(self.counts)[::-1][:codes].sum() / self.num_positions)

    def record(self) -> dict[str, Any]:
        """All figures, JSON-ready; distances in the units of z_e, entropies in bits."""
        repeats = np.flatnonzero(self.duplicate_of >= 0)
        return {name: getattr(self, name) for name in _GRID_FIGURES} | {
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
    spread: float
    """E||t - E t||^2 of z_e in code space."""
    error: float
    """E||t - z_q||^2, z_q decoded from all grids."""
    mean_norm: float
    """Mean Euclidean length of z_e."""
    max_norm: float
    """Largest Euclidean length of a z_e."""

    @property
    def relative_error(self) -> float | None:
        """`error` in units of `spread`; None where z_e does not vary."""
        return self.error / self.spread if self.spread else None

    def record(self) -> dict[str, Any]:
        """All figures, JSON-ready."""
        return {
            "num_images": self.num_images,
            "spread": self.spread,
            "error": self.error,
            "relative_error": self.relative_error,
            "mean_norm": self.mean_norm,
            "max_norm": self.max_norm,
            "grids": [grid.record() for grid in self.grids],
        }


@torch.no_grad()
def measure_codebook(
    model: VQVAE, batches: Iterable[Tensor], num_images: int
) -> CodebookStatistics:
    """Measures the codebook of `model` on every image of `batches`.

    Args:
        model: Is put into evaluation mode and left there.
        batches: uint8 (B, C, H, W) each, on the model's device; B may differ and changes nothing.
        num_images: How many images there are in all batches.

    Raises:
        ValueError: There are no images, or more or fewer than announced.
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
            kept = np.random.default_rng(0).choice(
                positions, min(positions, _SAMPLE), replace=False, shuffle=False
            )
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
        spread=whole.spread,
        error=whole.error / whole.count,
        mean_norm=norms / whole.count,
        max_norm=largest,
    )


class _Moments:
    """Sums over points t around a centre, and over their distances from z_q."""

    def __init__(self, centre: Tensor) -> None:
        self.count = 0
        self.error = 0.0
        self.squares = 0.0  # of the distances from the centre
        self._centre = centre  # float64 (D,)
        self._sum = torch.zeros_like(centre)

    def add(self, t: Tensor, z_q: Tensor) -> None:
        """Takes float64 (N, D) both."""
        centred = t - self._centre
        self.count += len(t)
        self.error += (t - z_q).square().sum().item()
        self.squares += centred.square().sum().item()
        self._sum += centred.sum(dim=0)

    @property
    def mean(self) -> Tensor:
        """E t, (D,), as seen from the centre."""
        return self._sum / self.count

    @property
    def spread(self) -> float:
        """The total variance, 0 where it is lost in rounding."""
        mean_square = self.squares / self.count
        variance = mean_square - self.mean.square().sum().item()
        return variance if variance > _ROUNDING * mean_square else 0.0


class _GridSums:
    """Sums over the positions of one grid."""

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
        """Takes float64 (N, D) and the int64 grid (B, h, w) of their codes, N = B*h*w."""
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
        """What the sums come to."""
        moments, centred = self._moments, self._vectors - self._centre
        counts = self._table.sum(dim=0)  # (K,), int64
        means = self._sums / counts.clamp(min=1)[:, None]
        lag = float((counts * (means - centred).square().sum(dim=1)).sum()) / moments.count
        radius = centred.square().sum(dim=1).mean().sqrt().item()
        spread, error = moments.spread, moments.error / moments.count
        dead = centred[counts == 0]
        duplicate_of, neighbour_distance = find_duplicates(self._vectors, counts, error)
        return GridStatistics(
            vectors=self._vectors.float().numpy(),
            counts=counts.numpy(),
            position_entropy=np.array([entropy_bits(row) for row in self._table]).reshape(
                self._shape
            ),
            spread=spread,
            error=error,
            lag=lag,
            reach=math.sqrt(moments.squares / moments.count) / radius if radius else None,
            dead_distance=math.sqrt(
                float((dead - moments.mean).square().sum(dim=1).mean()) / spread
            )
            if len(dead) and spread
            else None,
            neighbour_distance=neighbour_distance,
            duplicate_of=duplicate_of,
            sample=torch.cat(self._sample).numpy(),
        )


def _targets(t: Tensor, codes: tuple[Tensor, ...], vectors: list[Tensor]) -> list[Tensor]:
    """What each grid quantizes, float64 (N, D_i): groups of the channels, or residuals."""
    widths = [v.shape[1] for v in vectors]
    if sum(widths) == t.shape[1]:
        return list(torch.split(t, widths, dim=1))
    targets = [t]
    for grid, v in zip(codes[:-1], vectors, strict=False):
        targets.append(targets[-1] - v.double()[grid.flatten().cpu()])
    return targets


def _rows(features: Tensor) -> Tensor:
    """(B, D, h, w) as float64 (B*h*w, D) on the CPU (MPS knows no float64)."""
    return rearrange(features, "b d h w -> (b h w) d").cpu().double()
