"""Findings by statistics, and the options that they suggest."""

import re
from dataclasses import fields, replace

import numpy as np
import pytest

from pipelines.codebook.diagnosis import diagnose
from pipelines.codebook.statistics import CodebookStatistics, GridStatistics
from pipelines.codebook.suggestions import power_of_two_above, power_of_two_below
from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.quantizers.config import (
    QUANTIZER_CONFIGS,
    EMAQuantizerConfig,
    FiniteScalarConfig,
    GradientQuantizerConfig,
    GumbelConfig,
    ProductConfig,
    ResidualConfig,
)

K = 100
WORST_TO_BEST = ["severe", "moderate", "note", "none"]


def grid(counts=None, **values):
    """A grid without fault, 100 positions for each of K codes, but for what is given."""
    counts = np.full(K, 100) if counts is None else np.asarray(counts)
    healthy = {
        "vectors": np.zeros((len(counts), 8), np.float32),
        "position_entropy": np.full((2, 3), 4.0),
        "variance": 2.0,
        "error": 0.2,
        "lag": 0.01,
        "reach": 1.0,
        "dead_distance": None,
        "neighbour_distance": 0.3,
        "duplicate_of": np.full(len(counts), -1),
        "sample": np.zeros((5, 8), np.float32),
    }
    return GridStatistics(counts=counts, **healthy | values)


def statistics(*grids, num_images=50, **values):
    whole = {"variance": grids[0].variance, "error": grids[-1].error, "mean_norm": 1, "max_norm": 2}
    return CodebookStatistics(grids=grids, num_images=num_images, **whole | values)


def uses(used, perplexity=None, size=K, positions=100_000):
    """Counts of `size` codes, `used` of them used: one more often, so that the perplexity fits."""
    counts = np.zeros(size, np.int64)
    if perplexity is None:
        counts[:used] = positions // used
        return counts
    shares = np.linspace(1 / used, 1, 200_001)[:-1]
    entropy = -shares * np.log(shares) - (1 - shares) * np.log((1 - shares) / (used - 1))
    share = shares[np.abs(entropy - np.log(perplexity)).argmin()]
    counts[:used] = max(1, round(positions * (1 - share) / (used - 1)))
    counts[0] = round(positions * share)
    return counts


def ema(**options):
    return VQVAEConfig(quantizer=EMAQuantizerConfig(codebook_size=K, **options))


def findings(measured, config=None):
    return diagnose(measured, config or ema())


def names(*grids, config=None, **values):
    return [finding.name for finding in findings(statistics(*grids, **values), config)]


def repeats(used, dead=0, size=K):
    """`used` codes that are in use and `dead` at the end that are not repeat the first."""
    found = np.full(size, -1)
    found[1 : 1 + used] = 0
    found[size - dead :] = 0
    return found


def test_codebook_without_fault_is_healthy_and_says_why():
    (finding,) = findings(statistics(grid()))
    assert (finding.name, finding.severity, finding.grid) == ("healthy", "none", None)
    assert finding.evidence.startswith("100.0% of the codes are used, with a perplexity of 100 of")
    assert "explain 90% of the variance" in finding.evidence
    assert finding.options == ()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"counts": uses(8)}, "collapsed"),
        ({"counts": uses(50, 9.0)}, "collapsed"),
        ({"counts": uses(50)}, "partly_dead"),
        ({"counts": uses(90)}, "partly_dead"),
        ({"duplicate_of": repeats(5)}, "duplicated"),
        ({"lag": 0.41, "error": 0.5}, "drifting"),
        ({"error": 1.01}, "coarse"),
        ({"counts": np.full(K, 29)}, "few_positions"),
        ({"counts": uses(K, 9.0)}, "uneven"),
    ],
)
def test_each_fault_is_found_alone(values, expected):
    assert names(grid(**values)) == [expected]


@pytest.mark.parametrize(
    "values",
    [
        {"counts": uses(91)},
        {"duplicate_of": repeats(4)},
        {"lag": 0.39, "error": 0.5},
        {"error": 0.99},
        {"counts": np.full(K, 30)},
        {"counts": uses(K, 35.0)},
    ],
)
def test_statistics_just_inside_the_limits_are_healthy(values):
    assert names(grid(**values)) == ["healthy"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"counts": uses(K, 30.0)}, "uneven"),
        ({"position_entropy": np.array([[0, 0, 1.0], [2, 3, 4]])}, "constant_positions"),
    ],
)
def test_note_leaves_a_codebook_healthy(values, expected):
    found = findings(statistics(grid(**values)))
    assert [(f.name, f.severity) for f in found] == [(expected, "note"), ("healthy", "none")]


@pytest.mark.parametrize(("used", "severity"), [(51, "moderate"), (50, "severe")])
def test_half_of_the_codes_dead_is_severe(used, severity):
    (finding,) = findings(statistics(grid(uses(used), dead_distance=7.25)))
    assert finding.severity == severity
    assert f"{K - used} of 100 codes ({K - used}%)" in finding.evidence
    assert "7.2 times as far" in finding.evidence


def test_dead_copies_of_other_codes_are_evidence_of_dead_codes_and_no_duplicates():
    (finding,) = findings(statistics(grid(uses(50), duplicate_of=repeats(0, dead=40))))
    assert finding.name == "partly_dead"
    assert "40 of them duplicate" in finding.evidence


def test_collapse_has_usage_perplexity_and_top_share():
    (finding,) = findings(statistics(grid(uses(4))))
    assert finding.severity == "severe"
    for number in ("4 of 100 codes", "perplexity is 4.0", "25%"):
        assert number in finding.evidence


@pytest.mark.parametrize(("perplexity", "expected"), [(1.9, "collapsed"), (2.1, "partly_dead")])
def test_small_codebook_has_collapsed_below_two_codes(perplexity, expected):
    assert names(grid(uses(3, perplexity, size=6))) == [expected]


def test_few_images_do_not_make_a_collapse_or_dead_codes():
    # 40 positions, each another code of 1000: all that 40 positions can do.
    found = findings(statistics(grid(uses(40, size=1000, positions=40))))
    assert [finding.name for finding in found] == ["few_positions"]
    assert "0.0 positions per code; below 30" in found[0].evidence
    assert found[0].suggestion.startswith("train on more images, or set --vqvae.quantizer.codeboo")


def test_drift_has_the_error_without_lag_and_the_distance_of_z_e():
    (finding,) = findings(statistics(grid(error=6.0, lag=5.4, reach=12.3)))
    assert finding.severity == "severe"
    for number in ("90% of the quantization error", "3.00 times the variance", "12.3 times"):
        assert number in finding.evidence


def test_collapse_and_drift_come_together_and_explain_the_error():
    assert names(grid(uses(3), lag=1.5, error=1.9)) == ["collapsed", "drifting"]


def test_worst_finding_comes_first():
    bad = grid(uses(K, 30.0), lag=1.0, error=1.2, duplicate_of=repeats(20))
    severities = [finding.severity for finding in findings(statistics(bad))]
    assert severities == sorted(severities, key=WORST_TO_BEST.index)
    assert set(severities) == {"severe", "moderate", "note"}


def test_z_e_that_never_vary_are_a_collapse_only():
    still = grid(uses(1), variance=0.0, error=0.5, lag=0.5, position_entropy=np.zeros((2, 3)))
    assert names(still) == ["collapsed"]


def test_one_image_has_no_constant_positions():
    assert names(grid(position_entropy=np.zeros((2, 3))), num_images=1) == ["healthy"]


def test_gumbel_codes_are_not_judged_by_their_distance_to_z_e():
    config = VQVAEConfig(quantizer=GumbelConfig(codebook_size=K))
    (finding,) = findings(statistics(grid(error=9.0, lag=8.0)), config)
    assert finding.name == "healthy"
    assert "variance" not in finding.evidence


def test_fixed_codes_do_not_drift():
    config = VQVAEConfig(quantizer=FiniteScalarConfig(codebook_size=K))
    assert names(grid(error=0.9, lag=0.8), config=config) == ["healthy"]


def test_several_grids_are_judged_one_by_one_and_the_error_as_a_whole():
    config = VQVAEConfig(quantizer=ResidualConfig(base=EMAQuantizerConfig(codebook_size=K)))
    # The second grid leaves most of its residual over, as residuals have it; in all it is little.
    found = findings(
        statistics(grid(), grid(uses(40), variance=0.2, error=0.15), error=0.15), config
    )
    assert [(finding.name, finding.grid) for finding in found] == [("partly_dead", 1)]
    assert str(found[0]).startswith("partly_dead in grid 1 (severe). 60 of 100 codes (60%)")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"restart_threshold": 0.0, "kmeans_batches": 0},
            ("restart-threshold", "kmeans-batches", "entropy-weight"),
        ),
        ({"restart_until": 0.1}, ("restart-until", "entropy-weight")),
        ({"codebook_dim": 64}, ("codebook-dim", "entropy-weight")),
    ],
)
def test_collapse_suggests_first_what_the_run_has_switched_off(options, expected):
    (finding,) = findings(statistics(grid(uses(2, 1.5))), ema(**options))
    first = tuple(f"--vqvae.quantizer.{option}" for option in expected)
    assert finding.options[: len(first)] == first


def test_dead_codes_of_a_run_with_all_restarts_suggest_a_smaller_codebook():
    (finding,) = findings(statistics(grid(uses(60))))
    assert finding.suggestion.startswith("set --vqvae.quantizer.codebook-size to 64 (now 100)")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"commitment_weight": 0.25}, "set --vqvae.quantizer.commitment-weight to 1 (now 0.25)"),
        ({"commitment_weight": 1.0}, "set --vqvae.quantizer.commitment-weight to 2 (now 1)"),
        ({"decay": 0.999}, "set --vqvae.quantizer.decay to 0.99 (now 0.999)"),
    ],
)
def test_drift_suggests_tying_z_e_and_codes(options, expected):
    (finding,) = findings(statistics(grid(error=6.0, lag=5.4)), ema(**options))
    assert expected in finding.suggestion


def test_decay_is_not_suggested_for_codes_trained_by_gradients():
    config = VQVAEConfig(quantizer=GradientQuantizerConfig(codebook_size=K, decay=0.999))
    (finding,) = findings(statistics(grid(error=6.0, lag=5.4)), config)
    assert "--vqvae.quantizer.decay" not in finding.options
    assert "--vqvae.quantizer.codebook-weight" in finding.options


def test_large_error_suggests_fewer_dimensions_and_more_codes():
    (finding,) = findings(statistics(grid(error=1.5)), ema(codebook_dim=32))
    assert "75% of the variance of z_e" in finding.evidence
    assert finding.options == ("--vqvae.quantizer.codebook-dim", "--vqvae.quantizer.codebook-size")
    assert "to 400 (now 100)" in finding.suggestion


@pytest.mark.parametrize("downsampling", [4, 16])
def test_constant_positions_suggest_coarser_codes_where_there_are_any(downsampling):
    config = replace(ema(), downsampling=downsampling)
    note, _ = findings(statistics(grid(position_entropy=np.eye(3))), config)
    assert "6 of 9 positions" in note.evidence
    assert note.options == (("--vqvae.downsampling",) if downsampling == 4 else ())
    assert ("set --vqvae.downsampling to 8 (now 4)" in note.suggestion) == (downsampling == 4)


def test_options_that_exclude_each_other_are_changed_together():
    (finding,) = findings(statistics(grid(uses(2, 1.5))), ema(restart_threshold=0.05))
    both = (
        "switch on --vqvae.quantizer.online-clustering and set --vqvae.quantizer.restart-threshold "
        "to 0 (now 0.05)"
    )
    assert both in finding.suggestion


def test_option_that_the_kind_refuses_is_not_named():
    base = EMAQuantizerConfig(codebook_size=K)
    config = VQVAEConfig(quantizer=ResidualConfig(base=base))
    found = findings(statistics(grid(uses(2, 1.5)), grid()), config)
    assert "--vqvae.quantizer.base.entropy-weight" in found[0].options
    # A residual's length matters: cosine is refused there, and named everywhere else.
    assert not any("cosine" in option for option in found[0].options)
    (finding,) = findings(statistics(grid(uses(2, 1.5))))
    assert "--vqvae.quantizer.cosine" in finding.options


@pytest.mark.parametrize(
    ("levels", "option"),
    [(None, "--vqvae.quantizer.codebook-size"), ((10, 10), "--vqvae.quantizer.kind")],
)
def test_kind_without_an_option_left_suggests_another_kind(levels, option):
    config = VQVAEConfig(quantizer=FiniteScalarConfig(codebook_size=K, levels=levels))
    (finding,) = findings(statistics(grid(uses(60))), config)
    assert finding.options == (option,)


def test_powers_of_two_are_the_nearest_above_and_below():
    assert [power_of_two_above(n) for n in (0.5, 2, 2.01, 64, 65)] == [2, 2, 4, 64, 128]
    assert [power_of_two_below(n) for n in (0.5, 3.9, 4, 64, 127)] == [2, 2, 4, 64, 64]


FAULTS = {
    "collapsed": grid(uses(2, size=64)),
    "partly_dead": grid(uses(30, size=64)),
    "duplicated": grid(uses(64, size=64), duplicate_of=repeats(40, size=64)),
    "drifting": grid(uses(64, size=64), error=6.0, lag=5.4),
    "coarse": grid(uses(64, size=64), error=1.5),
    "few_positions": grid(np.full(64, 20)),
    "uneven": grid(uses(64, 5.0, size=64)),
}
UNTAUGHT = {"restart_threshold": 0.0, "kmeans_batches": 0, "restart_until": 0.1, "decay": 0.999}
WEAK = {"commitment_weight": 0.01, "codebook_dim": 32, "kl_weight": 0.0}


def quantizer(kind, weak):
    """A config of the kind with 64 codes, as recommended or with everything badly set."""
    if kind == "residual":
        return ResidualConfig(base=quantizer("ema", weak))
    if kind == "product":
        base = quantizer("ema", weak)
        return ProductConfig(codebook_dim=2 * base.codebook_dim, groups=2, base=base)
    known = {field.name for field in fields(QUANTIZER_CONFIGS[kind])}
    bad = {name: value for name, value in (UNTAUGHT | WEAK).items() if name in known and weak}
    return QUANTIZER_CONFIGS[kind](codebook_size=64, **bad)


@pytest.mark.parametrize("weak", [False, True])
@pytest.mark.parametrize("kind", QUANTIZER_CONFIGS)
def test_every_fault_suggests_options_that_the_kind_has(kind, weak):
    config = VQVAEConfig(quantizer=quantizer(kind, weak))
    prefix = "--vqvae.quantizer."
    for fault, measured in FAULTS.items():
        grids = (measured,) * (2 if kind in ("residual", "product") else 1)
        found = {finding.name: finding for finding in diagnose(statistics(*grids), config)}
        if (kind, fault) in (
            ("gumbel", "drifting"),
            ("gumbel", "coarse"),
            ("finite_scalar", "drifting"),
        ):
            assert fault not in found
            continue
        assert found[fault].options
        for option in found[fault].options:
            assert option in found[fault].suggestion
            owner, name = config.quantizer, option.removeprefix(prefix)
            if name.startswith("base."):
                owner, name = owner.base, name.removeprefix("base.")
            assert hasattr(owner, name.replace("-", "_")), option


def test_suggested_values_are_accepted_and_new():
    # The changes themselves refuse what a config does not accept: see `_apply`.
    config = VQVAEConfig(quantizer=quantizer("ema", weak=True))
    (finding, *_) = diagnose(statistics(FAULTS["collapsed"]), config)
    values = dict(re.findall(r"--vqvae\.quantizer\.(\S+) to (\S+) \(now", finding.suggestion))
    assert values == {"restart-threshold": "0.03", "kmeans-batches": "8", "restart-until": "0.7"}
