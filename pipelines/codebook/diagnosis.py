"""Diagnosis of a codebook: faults, their evidence, and suggestions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from pipelines.codebook.statistics import CodebookStatistics, GridStatistics
from pipelines.codebook.suggestions import (
    FOLLOW_Z_E,
    RESTART_CODES,
    SEPARATE_CODES,
    USE_MORE_CODES,
    Change,
    power_of_two_above,
    power_of_two_below,
    refine,
    shrink,
    suggest,
)
from stage1_vqvae.config import VQVAEConfig

Severity: TypeAlias = Literal["severe", "moderate", "note", "none"]
_BY_SEVERITY: tuple[Severity, ...] = ("severe", "moderate", "note", "none")

# Collapsed: an effective number of codes below this part of the possible one, and half unused.
_COLLAPSED = 0.1
# Uneven: an effective number below this part of the used codes (1.6 and 3.3 bits a code are lost).
_UNEVEN, _VERY_UNEVEN = 1 / 3, 0.1
# Parts of the codes that are dead, for a moderate and a severe finding.
_DEAD, _MOSTLY_DEAD = 0.1, 0.5
# Part of the codes that are duplicates.
_DUPLICATED = 0.05
# Drifting: a lag above this part of the variance of z_e; z_e twice as long as their codes have 1/4.
_LAG = 0.2
# Coarse: an error above this part of the variance; 1 is that of a single code.
_COARSE = 0.5
# With N positions per code, a code ten times rarer than the average is missed with probability
# exp(-N / 10): 5 % at 30.
_POSITIONS_PER_CODE = 30
# Kinds whose code vectors are not near z_e by design, and kinds whose code vectors are constant.
_NOT_NEAR = ("gumbel",)
_FIXED = ("finite_scalar",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A fault of a codebook, or its absence."""

    name: str
    """collapsed, partly_dead, duplicated, drifting, coarse, few_positions, uneven or
    constant_positions; or healthy."""
    severity: Severity
    """`none` for healthy, which is added if nothing is above `note`."""
    grid: int | None = None
    """Index of the grid; None for the quantizer as a whole or its only grid."""
    evidence: str
    """The statistics behind it: a sentence."""
    suggestion: str
    """What to change: a sentence."""
    options: tuple[str, ...] = ()
    """The options in `suggestion`, as on the command line."""

    def __str__(self) -> str:
        grid = "" if self.grid is None else f" in grid {self.grid}"
        evidence, suggestion = (s[0].upper() + s[1:] for s in (self.evidence, self.suggestion))
        return f"{self.name}{grid} ({self.severity}). {evidence}. {suggestion}."


def diagnose(statistics: CodebookStatistics, config: VQVAEConfig) -> tuple[Finding, ...]:
    """Returns findings on a codebook over a whole split, by decreasing severity."""
    found: list[Finding] = []
    for i, grid in enumerate(statistics.grids):
        index = i if len(statistics.grids) > 1 else None
        found += [replace(f, grid=index) for f in _of_grid(grid, statistics.num_images, config)]
    # A large error is the consequence of a collapse or a drift.
    if not _names(found) & {"collapsed", "drifting"}:
        found += _coarse(statistics, config)
    if all(finding.severity == "note" for finding in found):
        found.append(_healthy(statistics, config))
    return tuple(sorted(found, key=lambda finding: _BY_SEVERITY.index(finding.severity)))


def _of_grid(grid: GridStatistics, num_images: int, config: VQVAEConfig) -> list[Finding]:
    found = [
        *_collapsed(grid, config),
        *_few_positions(grid, config),
        *_duplicated(grid, config),
        *_drifting(grid, config),
    ]
    if "collapsed" in _names(found):  # implies the findings below
        return found
    if "few_positions" not in _names(found):  # else codes may be dead by chance
        found += _partly_dead(grid, config)
    if "partly_dead" not in _names(found):  # else its suggestion comes first
        found += _uneven(grid, config)
    if num_images > 1:
        found += _constant_positions(grid, config)
    return found


def _finding(
    name: str,
    severity: Severity,
    evidence: str,
    config: VQVAEConfig,
    changes: Sequence[Change],
    prefix: str = "",
) -> list[Finding]:
    """Returns a finding with the suggestion of `changes`, after a prefix."""
    suggestion = suggest(config, changes)
    return [
        Finding(
            name=name,
            severity=severity,
            evidence=evidence,
            suggestion=prefix + suggestion.sentence,
            options=suggestion.options,
        )
    ]


def _collapsed(grid: GridStatistics, config: VQVAEConfig) -> list[Finding]:
    reachable = min(grid.codebook_size, grid.num_positions)
    if grid.perplexity >= max(2, _COLLAPSED * reachable) or grid.usage > 1 - _MOSTLY_DEAD:
        return []
    evidence = (
        f"only {grid.num_used:,} of {grid.codebook_size:,} codes are used, their perplexity is "
        f"{grid.perplexity:.1f}, and the most frequent one takes {grid.top_share(1):.0%} of all "
        "positions"
    )
    return _finding("collapsed", "severe", evidence, config, (*RESTART_CODES, *USE_MORE_CODES))


def _partly_dead(grid: GridStatistics, config: VQVAEConfig) -> list[Finding]:
    dead = grid.num_dead / grid.codebook_size
    if dead < _DEAD:
        return []
    evidence = (
        f"{grid.num_dead:,} of {grid.codebook_size:,} codes ({dead:.0%}) are never used, and the "
        f"perplexity is {grid.perplexity:.1f}"
    )
    if grid.dead_distance is not None:
        evidence += (
            f"; dead codes are {grid.dead_distance:,.1f} times as far from the mean of z_e as z_e"
        )
    if grid.dead_duplicates:
        evidence += f", and {grid.dead_duplicates:,} of them duplicate another code"
    severity: Severity = "severe" if dead >= _MOSTLY_DEAD else "moderate"
    smaller = shrink(power_of_two_above(grid.num_used))
    changes = (*RESTART_CODES, smaller, *USE_MORE_CODES)
    return _finding("partly_dead", severity, evidence, config, changes)


def _duplicated(grid: GridStatistics, config: VQVAEConfig) -> list[Finding]:
    duplicates = grid.used_duplicates
    if duplicates < _DUPLICATED * grid.codebook_size:
        return []
    evidence = (
        f"{duplicates:,} of {grid.codebook_size:,} codes are used but duplicate a more frequent "
        "one: exchanging the two would hardly change the quantization error"
    )
    smaller = shrink(power_of_two_above(grid.num_used - duplicates))
    return _finding("duplicated", "moderate", evidence, config, (*SEPARATE_CODES, smaller))


def _drifting(grid: GridStatistics, config: VQVAEConfig) -> list[Finding]:
    lag = grid.relative_lag
    if lag is None or lag <= _LAG or _kind(config) in (*_NOT_NEAR, *_FIXED):
        return []
    evidence = (
        "codes lag behind their z_e: moving each to the mean of its z_e would remove "
        f"{grid.lag / grid.error:.0%} of the quantization error, which is "
        f"{grid.error / grid.variance:,.2f} times the variance of z_e"
    )
    if grid.reach is not None:
        evidence += f"; z_e are {grid.reach:,.1f} times as far from the mean code as the codes"
    return _finding("drifting", "severe", evidence, config, FOLLOW_Z_E)


def _coarse(statistics: CodebookStatistics, config: VQVAEConfig) -> list[Finding]:
    error = statistics.relative_error
    if error is None or error <= _COARSE or _kind(config) in _NOT_NEAR:
        return []
    evidence = f"the quantization error is {error:.0%} of the variance of z_e"
    changes = refine(statistics.grids[0].codebook_size)
    return _finding("coarse", "moderate", evidence, config, changes)


def _few_positions(grid: GridStatistics, config: VQVAEConfig) -> list[Finding]:
    per_code = grid.num_positions / grid.codebook_size
    if per_code >= _POSITIONS_PER_CODE:
        return []
    evidence = (
        f"the images have only {per_code:.1f} positions per code; below {_POSITIONS_PER_CODE}, "
        "codes are unused by chance and trained on too little"
    )
    smaller = shrink(power_of_two_below(grid.num_positions / _POSITIONS_PER_CODE))
    prefix = "train on more images, or "
    return _finding("few_positions", "moderate", evidence, config, (smaller,), prefix)


def _uneven(grid: GridStatistics, config: VQVAEConfig) -> list[Finding]:
    if grid.perplexity >= _UNEVEN * grid.num_used:
        return []
    evidence = (
        f"{grid.num_used:,} codes are used, but as unevenly as {grid.perplexity:.1f} uniform ones; "
        f"the ten most frequent take {grid.top_share(10):.0%} of all positions"
    )
    very = grid.perplexity < _VERY_UNEVEN * grid.num_used
    smaller = shrink(power_of_two_above(grid.perplexity))
    changes = (*USE_MORE_CODES, smaller) if very else (smaller,)
    prefix = "a prior or an entropy coder compensates; to use the codes more evenly, "
    return _finding("uneven", "moderate" if very else "note", evidence, config, changes, prefix)


def _constant_positions(grid: GridStatistics, config: VQVAEConfig) -> list[Finding]:
    if not grid.constant_positions:
        return []
    option, now = "--vqvae.downsampling", config.downsampling
    coarser = f", or set {option} to {2 * now} (now {now}), so that there are fewer positions"
    return [
        Finding(
            name="constant_positions",
            severity="note",
            evidence=f"{grid.constant_positions:,} of {grid.position_entropy.size:,} positions "
            "have the same code in every image",
            suggestion="a prior or an entropy coder spends no bits there; without either, crop the "
            f"images{coarser if now < 16 else ''}",
            options=(option,) if now < 16 else (),
        )
    ]


def _healthy(statistics: CodebookStatistics, config: VQVAEConfig) -> Finding:
    grids = statistics.grids
    usage = ", ".join(f"{grid.usage:.1%}" for grid in grids)
    perplexity = ", ".join(f"{grid.perplexity:.0f} of {grid.codebook_size:,}" for grid in grids)
    evidence = f"{usage} of the codes are used, with a perplexity of {perplexity}, and "
    evidence += f"{sum(grid.used_duplicates for grid in grids):,} of them are duplicates"
    error = statistics.relative_error
    if error is not None and _kind(config) not in _NOT_NEAR:
        evidence += f"; they explain {1 - error:.0%} of the variance of z_e"
    return Finding(
        name="healthy", severity="none", evidence=evidence, suggestion="no option has to change"
    )


def _names(findings: list[Finding]) -> set[str]:
    return {finding.name for finding in findings}


def _kind(config: VQVAEConfig) -> str:
    """Returns the kind of the quantizer, or of its base, which decides what the vectors mean."""
    quantizer: Any = config.quantizer
    return str(getattr(quantizer, "base", quantizer).kind)
