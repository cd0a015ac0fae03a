"""What a prior is a distribution over, and what it is conditioned on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from stage2_prior.grids import GridSpec, check_grids

_MAX_LABELS = 1 << 24
_MAX_FEATURES = 1 << 16
_MAX_CONTEXT_LENGTH = 1 << 18


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """Shape of a context of float features, on a grid in raster order.

    Raises:
        ValueError: A side or the dimension is below 1, or there are more than 2^18 positions or
            2^16 features.
    """

    height: int
    """Rows."""
    width: int
    """Columns; Lc = height * width."""
    dim: int
    """D, features per position."""

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.dim) < 1:
            raise ValueError(f"height, width and dim must be at least 1, got {self}")
        if self.dim > _MAX_FEATURES or self.height * self.width > _MAX_CONTEXT_LENGTH:
            raise ValueError(
                f"a context must have at most {_MAX_CONTEXT_LENGTH:,} positions of "
                f"{_MAX_FEATURES:,} features, got {self}"
            )

    @property
    def num_positions(self) -> int:
        """Lc."""
        return self.height * self.width


ContextSpec: TypeAlias = tuple[GridSpec, ...] | FeatureSpec
"""Code grids or float features; an empty tuple for no context."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorSpec:
    """The variables of a prior p(codes | labels, context).

    Raises:
        ValueError: There are no grids or too many (see `check_grids`), or a number of labels is out
            of range.
    """

    grids: tuple[GridSpec, ...]
    """Shape and codebook size of each code grid."""
    num_classes: int | None = None
    """Labels are in [0, num_classes); None for a prior without labels."""
    context: ContextSpec = ()
    """What the codes are conditioned on besides the label."""
    vqvae_hash: str | None = None
    """`weights_hash` of the tokenizer that made the codes, if known."""
    num_extra_labels: int = 0
    """Labels beyond the classes and `no label` that only training uses, for example for augmented
    images. Samples and log-probabilities never have them."""

    def __post_init__(self) -> None:
        if not self.grids:
            raise ValueError("at least one grid is required, got none")
        check_grids(self.grids)
        if isinstance(self.context, tuple):
            check_grids(self.context, "context")
        classes, extra = self.num_classes, self.num_extra_labels
        if classes is not None and not 1 <= classes <= _MAX_LABELS:
            raise ValueError(
                f"num_classes must be from 1 to {_MAX_LABELS:,}, or None, got {classes!r}"
            )
        if not 0 <= extra <= _MAX_LABELS:
            raise ValueError(f"num_extra_labels must be from 0 to {_MAX_LABELS:,}, got {extra!r}")

    @property
    def num_codes(self) -> int:
        """L, the codes of one image over all grids."""
        return sum(grid.num_codes for grid in self.grids)

    @property
    def null_label(self) -> int:
        """The label that stands for `no label`, one past the classes."""
        return self.num_classes or 0

    @property
    def num_labels(self) -> int:
        """Rows of a label embedding: the classes, `no label` and the extra labels."""
        return self.null_label + 1 + self.num_extra_labels
