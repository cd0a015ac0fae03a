"""The table of a sweep: the pareto front, and tables that say what the rows say."""

import csv
import io
import math
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sweeps.table import (
    SweepRow,
    failures_to_markdown,
    pareto_front,
    prior_front,
    rate_front,
    to_csv,
    to_markdown,
)

STAGE_ONE = SweepRow(
    kind="residual",
    codebook_size=256,
    codebook_sizes=(16, 16),
    bits_per_position=8.0,
    bits_per_image=392.0,
    bits_per_pixel=0.5,
    psnr=24.345678,
    ssim=0.912345,
    usage=0.96875,
    perplexity=12.3456,
    order_0_entropy=3.625926,
    vqvae_seconds=163.7,
    images_per_second=735.4321,
    parameters=1234567,
)
WHOLE = replace(
    STAGE_ONE,
    kind="ema",
    codebook_size=512,
    codebook_sizes=(512,),
    bits_per_code=5.5678,
    prior_bits_per_image=272.82,
    prior_seconds=224.2,
)
FAILED = SweepRow(kind="gradient", codebook_size=64, failure="the loss is nan | at step 3")
FAILED_IN_PRIOR = replace(STAGE_ONE, kind="simvq", failure="training prior stopped")

# Few different values, so that ties are frequent.
NUMBERS = st.one_of(st.none(), st.integers(0, 4).map(float), st.just(math.inf))
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12)


def is_dominated(point, others):
    """The definition, word for word."""
    bits, quality = point
    return any(
        b <= bits and q >= quality and (b < bits or q > quality)
        for b, q in others
        if b is not None and q is not None
    )


@given(POINTS)
def test_pareto_front_is_what_no_other_point_dominates(points):
    expected = [None not in point and not is_dominated(point, points) for point in points]
    assert pareto_front(points) == expected


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(1.0, 1.0), (1.0, 1.0)], [True, True]),
        ([(1.0, 1.0), (1.0, 2.0)], [False, True]),
        ([(2.0, 1.0), (1.0, 1.0)], [False, True]),
        ([(1.0, 1.0), (2.0, 2.0), (3.0, 1.5)], [True, True, False]),
        ([(1.0, math.inf), (2.0, math.inf)], [True, False]),
        ([(None, 9.0), (1.0, None), (5.0, -1.0)], [False, False, True]),
    ],
)
def test_pareto_front_of_small_cases(points, front):
    assert pareto_front(points) == front


def test_fronts_take_raw_bits_and_bits_under_the_prior():
    # The first has fewer raw bits, the second fewer bits under its prior; PSNR is the same.
    first = replace(WHOLE, bits_per_image=300.0, prior_bits_per_image=250.0)
    second = replace(WHOLE, bits_per_image=400.0, prior_bits_per_image=200.0)
    assert rate_front([first, second]) == [True, False]
    assert prior_front([first, second]) == [False, True]


def read_csv(text):
    """Rows and both marks from a CSV file, by a reader written for this test."""
    rows, marks = [], []
    for record in csv.DictReader(io.StringIO(text)):
        marks.append((record.pop("on_front") == "True", record.pop("on_prior_front") == "True"))
        values = {name: None if cell == "" else cell for name, cell in record.items()}
        for name in values.keys() - {"kind", "codebook_sizes", "failure"}:
            if values[name] is not None:
                whole = name in ("codebook_size", "parameters")
                values[name] = int(values[name]) if whole else float(values[name])
        if values["codebook_sizes"] is not None:
            values["codebook_sizes"] = tuple(int(k) for k in values["codebook_sizes"].split("+"))
        rows.append(SweepRow(**values))
    return rows, marks


ALL = [STAGE_ONE, WHOLE, FAILED, FAILED_IN_PRIOR, replace(WHOLE, psnr=math.inf, ssim=None)]


def test_csv_gives_the_rows_back():
    rows, marks = read_csv(to_csv(ALL))
    assert rows == ALL
    assert marks == [
        (False, False),
        (False, False),
        (False, False),
        (False, False),
        (True, True),
    ]


def test_csv_has_every_field_and_both_marks_once():
    header = to_csv([]).strip().split(",")
    assert sorted(header) == sorted(
        [*(f.name for f in fields(SweepRow)), "on_front", "on_prior_front"]
    )


def read_markdown(text):
    """The cells of a Markdown table by heading."""
    lines = [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in text.split("\n")]
    heading, rule, *rows = lines[:-1]
    assert all(set(cell) <= set("-:") for cell in rule)
    return [dict(zip(heading, row, strict=True)) for row in rows]


def test_markdown_says_the_figures_rounded():
    (row,) = read_markdown(to_markdown([WHOLE]))
    assert row == {
        "quantizer": "ema",
        "size": "512",
        "codes": "512",
        "bits/position": "8",
        "bits/image": "392",
        "bits/pixel": "0.5000",
        "PSNR dB": "24.35",
        "SSIM": "0.9123",
        "front": "*",
        "usage": "96.9%",
        "perplexity": "12.3",
        "entropy": "3.626",
        "prior bits/code": "5.568",
        "prior bits/image": "272.8",
        "prior front": "*",
        "train s": "164",
        "prior s": "224",
        "parameters": "1,234,567",
        "images/s": "735",
    }


def test_markdown_without_priors_has_no_columns_of_them():
    (row,) = read_markdown(to_markdown([STAGE_ONE]))
    assert [heading for heading in row if heading.startswith("prior")] == []
    assert row["codes"] == "16+16"


def test_markdown_says_where_a_run_failed():
    failed, in_prior = read_markdown(to_markdown([FAILED, FAILED_IN_PRIOR]))
    assert (failed["PSNR dB"], failed["prior bits/code"]) == ("failed", "-")
    assert (in_prior["PSNR dB"], in_prior["prior bits/code"]) == ("24.35", "failed")
    assert (failed["front"], in_prior["front"]) == ("-", "*")


def test_markdown_marks_the_fronts():
    worse = replace(WHOLE, psnr=20.0, prior_bits_per_image=100.0)
    first, second = read_markdown(to_markdown([WHOLE, worse]))
    assert (first["front"], first["prior front"]) == ("*", "*")
    assert (second["front"], second["prior front"]) == ("-", "*")


def test_markdown_lines_are_of_one_width():
    lines = to_markdown(ALL).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_failures_are_listed_with_their_sentences():
    assert failures_to_markdown(ALL) == (
        "- gradient with 64 codes failed: the loss is nan | at step 3\n"
        "- simvq with 256 codes failed: training prior stopped\n"
    )
