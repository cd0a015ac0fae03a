"""From a codebook's figures to plain sentences: what is wrong, how it is seen, what to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pipelines.codebook.statistics import CodebookStatistics, GridStatistics
from pipelines.codebook.suggestions import (
    APPROACH,
    PART,
    RESTART,
    VARY,
    power_of_two_above,
    power_of_two_below,
    prescribe,
    refine,
    shrink,
)
from stage1_vqvae.config import VQVAEConfig

Severity: TypeAlias = Literal["severe", "moderate", "note", "none"]
_BY_SEVERITY: tuple[Severity, ...] = ("severe", "moderate", "note", "none")

# Collapsed: fewer effective codes than this part of those there could be, and half of them unused.
_COLLAPSED = 0.1
# Uneven: fewer effective codes than this part of those in use (1.6 and 3.3 bits a code lie idle).
_UNEVEN, _VERY_UNEVEN = 1 / 3, 0.1
# This part of the codes dead is worth a word, and this part a loud one.
_DEAD, _MOSTLY_DEAD = 0.1, 0.5
# This part of the codes repeating others is worth a word.
_DUPLICATED = 0.05
# Drifting: codes this far beside their z_e, in parts of the spread of z_e. Where z_e are twice as
# long as their codes it is a quarter.
_LAG = 0.2
# Coarse: an error of more than this part of the spread; 1 is what a single code reaches.
_COARSE = 0.5
# With N positions per code, a code ten times rarer than the average is missed with probability
# exp(-N / 10): 5 % at 30.
_POSITIONS_PER_CODE = 30
# Kinds whose code vectors are not meant to be near z_e, and kinds whose code vectors neither move
# nor pull, so that nothing can drift.
_NOT_NEAR = ("gumbel",)
_FIXED = ("finite_scalar",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that the figures say."""

    name: str
    """What is wrong: collapsed, partly_dead, duplicated, drifting, coarse, few_positions, uneven or
    constant_positions; or healthy."""
    severity: Severity
    """`none` for healthy, which is there when nothing above `note` is."""
    grid: int | None = None
    """Which grid of codes; None for the quantizer as a whole or its only grid."""
    evidence: str
    """How it is seen: a sentence with the figures."""
    cure: str
    """What to change: a sentence."""
    options: tuple[str, ...] = ()
    """The options that `cure` names, as on the command line."""

    def __str__(self) -> str:
        grid = "" if self.grid is None else f" in grid {self.grid}"
        evidence, cure = (text[0].upper() + text[1:] for text in (self.evidence, self.cure))
        return f"{self.name}{grid} ({self.severity}). {evidence}. {cure}."


def diagnose(statistics: CodebookStatistics, config: VQVAEConfig) -> tuple[Finding, ...]:
    """What the figures of a whole split say about a model with `config`, the worst first."""
    found: list[Finding] = []
    for i, grid in enumerate(statistics.grids):
        index = i if len(statistics.grids) > 1 else None
        found += _of_grid(grid, index, statistics.num_images, config)
    # Of a collapse or a drift, a large error is the consequence.
    if not _names(found) & {"collapsed", "drifting"}:
        found += _coarse(statistics, config)
    if all(finding.severity == "note" for finding in found):
        found.append(_healthy(statistics, config))
    return tuple(sorted(found, key=lambda finding: _BY_SEVERITY.index(finding.severity)))


def _of_grid(
    grid: GridStatistics, index: int | None, num_images: int, config: VQVAEConfig
) -> list[Finding]:
    found = [
        *_collapsed(grid, index, config),
        *_few_positions(grid, index, config),
        *_duplicated(grid, index, config),
        *_drifting(grid, index, config),
    ]
    if "collapsed" in _names(found):  # which says it all about the use of codes
        return found
    if "few_positions" not in _names(found):  # else codes may be dead by chance
        found += _partly_dead(grid, index, config)
    if "partly_dead" not in _names(found):  # else the cure of that comes first
        found += _uneven(grid, index, config)
    if num_images > 1:
        found += _constant_positions(grid, index, config)
    return found


def _collapsed(grid: GridStatistics, index: int | None, config: VQVAEConfig) -> list[Finding]:
    reachable = min(grid.codebook_size, grid.num_positions)
    if grid.perplexity >= max(2, _COLLAPSED * reachable) or grid.usage > 1 - _MOSTLY_DEAD:
        return []
    cure = prescribe(config, (*RESTART, *VARY))
    return [
        Finding(
            name="collapsed",
            severity="severe",
            grid=index,
            evidence=f"only {grid.num_used:,} of {grid.codebook_size:,} codes are used, their "
            f"perplexity is {grid.perplexity:.1f}, and the most frequent one takes "
            f"{grid.top_share(1):.0%} of all positions",
            cure=cure.sentence,
            options=cure.options,
        )
    ]


def _partly_dead(grid: GridStatistics, index: int | None, config: VQVAEConfig) -> list[Finding]:
    dead = grid.num_dead / grid.codebook_size
    if dead < _DEAD:
        return []
    evidence = (
        f"{grid.num_dead:,} of {grid.codebook_size:,} codes ({dead:.0%}) are never chosen, and the "
        f"perplexity is {grid.perplexity:.1f}"
    )
    if grid.dead_distance is not None:
        evidence += (
            f"; dead codes lie {grid.dead_distance:,.1f} times as far from the mean of z_e as z_e"
        )
    if grid.dead_duplicates:
        evidence += f", and {grid.dead_duplicates:,} of them repeat another code"
    smaller = shrink(power_of_two_above(grid.num_used))
    cure = prescribe(config, (*RESTART, smaller, *VARY))
    return [
        Finding(
            name="partly_dead",
            severity="severe" if dead >= _MOSTLY_DEAD else "moderate",
            grid=index,
            evidence=evidence,
            cure=cure.sentence,
            options=cure.options,
        )
    ]


def _duplicated(grid: GridStatistics, index: int | None, config: VQVAEConfig) -> list[Finding]:
    repeats = grid.used_duplicates
    if repeats < _DUPLICATED * grid.codebook_size:
        return []
    cure = prescribe(config, (*PART, shrink(power_of_two_above(grid.num_used - repeats))))
    return [
        Finding(
            name="duplicated",
            severity="moderate",
            grid=index,
            evidence=f"{repeats:,} of {grid.codebook_size:,} codes are used but repeat a more "
            "frequent one: exchanging the two would hardly change the quantization error",
            cure=cure.sentence,
            options=cure.options,
        )
    ]


def _drifting(grid: GridStatistics, index: int | None, config: VQVAEConfig) -> list[Finding]:
    lag = grid.relative_lag
    if lag is None or lag <= _LAG or _kind(config) in (*_NOT_NEAR, *_FIXED):
        return []
    evidence = (
        "codes lie beside the z_e that choose them: moving each to their mean would take away "
        f"{grid.lag / grid.error:.0%} of the quantization error, which is "
        f"{grid.error / grid.spread:,.2f} times the spread of z_e"
    )
    if grid.reach is not None:
        evidence += (
            f"; z_e lie {grid.reach:,.1f} times as far from the centre of the codebook as its codes"
        )
    cure = prescribe(config, APPROACH)
    return [
        Finding(
            name="drifting",
            severity="severe",
            grid=index,
            evidence=evidence,
            cure=cure.sentence,
            options=cure.options,
        )
    ]


def _coarse(statistics: CodebookStatistics, config: VQVAEConfig) -> list[Finding]:
    error = statistics.relative_error
    if error is None or error <= _COARSE or _kind(config) in _NOT_NEAR:
        return []
    cure = prescribe(config, refine(statistics.grids[0].codebook_size))
    return [
        Finding(
            name="coarse",
            severity="moderate",
            evidence=f"the quantization error is {error:.0%} of the spread of z_e, so that the "
            "codes say less than half of where z_e are",
            cure=cure.sentence,
            options=cure.options,
        )
    ]


def _few_positions(grid: GridStatistics, index: int | None, config: VQVAEConfig) -> list[Finding]:
    per_code = grid.num_positions / grid.codebook_size
    if per_code >= _POSITIONS_PER_CODE:
        return []
    smaller = shrink(power_of_two_below(grid.num_positions / _POSITIONS_PER_CODE))
    cure = prescribe(config, (smaller,))
    return [
        Finding(
            name="few_positions",
            severity="moderate",
            grid=index,
            evidence=f"the images have only {per_code:.1f} positions per code; below "
            f"{_POSITIONS_PER_CODE}, codes stay unused by chance and are learned from too little",
            cure=f"train on more images, or {cure.sentence}",
            options=cure.options,
        )
    ]


def _uneven(grid: GridStatistics, index: int | None, config: VQVAEConfig) -> list[Finding]:
    if grid.perplexity >= _UNEVEN * grid.num_used:
        return []
    smaller = shrink(power_of_two_above(grid.perplexity))
    very = grid.perplexity < _VERY_UNEVEN * grid.num_used
    cure = prescribe(config, (*VARY, smaller) if very else (smaller,))
    return [
        Finding(
            name="uneven",
            severity="moderate" if very else "note",
            grid=index,
            evidence=f"{grid.num_used:,} codes are used, but so unevenly that they carry no more "
            f"than {grid.perplexity:.1f} even ones; the ten most frequent take "
            f"{grid.top_share(10):.0%} of all positions",
            cure="a prior or an entropy coder makes up for it; to use the codes more evenly, "
            f"{cure.sentence}",
            options=cure.options,
        )
    ]


def _constant_positions(
    grid: GridStatistics, index: int | None, config: VQVAEConfig
) -> list[Finding]:
    if not grid.constant_positions:
        return []
    option, now = "--vqvae.downsampling", config.downsampling
    coarser = f", or set {option} to {2 * now} (now {now}), so that there are fewer positions"
    return [
        Finding(
            name="constant_positions",
            severity="note",
            grid=index,
            evidence=f"{grid.constant_positions:,} of {grid.position_entropy.size:,} positions "
            "have one and the same code in every image",
            cure="a prior or an entropy coder spends no bits there; where every code is stored "
            f"with the same number of bits, crop the images{coarser if now < 16 else ''}",
            options=(option,) if now < 16 else (),
        )
    ]


def _healthy(statistics: CodebookStatistics, config: VQVAEConfig) -> Finding:
    grids = statistics.grids
    usage = ", ".join(f"{grid.usage:.1%}" for grid in grids)
    perplexity = ", ".join(f"{grid.perplexity:.0f} of {grid.codebook_size:,}" for grid in grids)
    evidence = f"{usage} of the codes are used, with a perplexity of {perplexity}, and "
    evidence += f"{sum(grid.used_duplicates for grid in grids):,} of them repeat another"
    error = statistics.relative_error
    if error is not None and _kind(config) not in _NOT_NEAR:
        evidence += f"; they explain {1 - error:.0%} of the spread of z_e"
    return Finding(
        name="healthy", severity="none", evidence=evidence, cure="no option has to change"
    )


def _names(findings: list[Finding]) -> set[str]:
    return {finding.name for finding in findings}


def _kind(config: VQVAEConfig) -> str:
    """The kind that decides what the code vectors mean: the base's, where there is one."""
    quantizer: Any = config.quantizer
    return str(getattr(quantizer, "base", quantizer).kind)
