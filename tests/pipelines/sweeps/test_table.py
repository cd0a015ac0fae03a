"""The table of a sweep: the Pareto front, and tables that hold the rows."""

import csv
import io
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sweeps.row import DEFINITIONS, SweepRow
from pipelines.sweeps.table import document, fronts, pareto_front, to_csv, to_markdown


def row(kind, size, *, sizes=(), failure=None, **values):
    return SweepRow(
        kind=kind, codebook_size=size, codebook_sizes=sizes, values=values, failure=failure
    )


STAGE_ONE = row(
    *("residual", 256),
    sizes=(16, 16),
    bits_per_image=392.0,
    psnr=24.345678,
    usage=0.96875,
    parameters=1234567,
)
WHOLE = row(
    *("ema", 512),
    sizes=(512,),
    bits_per_image=441.0,
    psnr=24.5,
    bits_per_code=5.5678,
    prior_bits_per_image=272.82,
)
FAILED = row("gradient", 64, failure="the loss is nan | at step 3")
FAILED_IN_PRIOR = replace(STAGE_ONE, kind="simvq", failure="training prior stopped")
EXACT = replace(WHOLE, values={**WHOLE.values, "psnr": math.inf})
ALL = [STAGE_ONE, WHOLE, FAILED, FAILED_IN_PRIOR, EXACT]

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
    first = row("a", 4, psnr=9.0, bits_per_image=300.0, prior_bits_per_image=250.0)
    second = row("b", 4, psnr=9.0, bits_per_image=400.0, prior_bits_per_image=200.0)
    assert fronts([first, second]) == ([True, False], [False, True])


def test_csv_gives_the_rows_back_with_their_fronts():
    read, on_fronts = [], []
    for cells in csv.DictReader(io.StringIO(to_csv(ALL))):
        values = {d.name: cells.pop(d.name) for d in DEFINITIONS}
        on_fronts.append((cells.pop("on_front"), cells.pop("on_prior_front")))
        sizes = cells.pop("codebook_sizes")
        read.append(
            row(
                cells.pop("kind"),
                int(cells.pop("codebook_size")),
                sizes=tuple(map(int, sizes.split("+"))) if sizes else (),
                failure=cells.pop("failure") or None,
                **{name: float(cell) for name, cell in values.items() if cell},
            )
        )
        assert cells == {}
    assert read == ALL
    assert "1234567," in to_csv(ALL)  # a count has no decimals
    assert on_fronts == list(zip(*[map(str, front) for front in fronts(ALL)], strict=True))


def read_markdown(text):
    """The cells of a Markdown table by heading."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines()]
    heading, rule, *rows = lines
    assert all(set(cell) <= set("-:") for cell in rule)
    return [dict(zip(heading, cells, strict=True)) for cells in rows]


def test_markdown_has_rounded_metrics_and_marks_fronts_and_failures():
    cells = read_markdown(to_markdown(ALL[:4], 100))
    assert cells[0] == {
        "quantizer": "residual",
        "size": "256",
        "codes": "16+16",
        "front": "*",
        "prior front": "-",
        "bits/image": "392",
        "PSNR, dB": "24.35",
        "usage, %": "96.88",
        "parameters": "1,234,567",
        "prior bits/code": "-",
        "prior bits/image": "-",
    }
    assert [c["front"] for c in cells] == ["*", "*", "failed", "*"]
    assert [c["prior front"] for c in cells] == ["-", "*", "-", "failed"]
    assert (cells[1]["PSNR, dB"], cells[1]["prior bits/image"]) == ("**24.5**", "272.8")


def test_markdown_without_priors_has_no_columns_of_them():
    (cells,) = read_markdown(to_markdown([STAGE_ONE], 100))
    assert [heading for heading in cells if "prior" in heading] == []


def test_document_has_head_table_failures_and_explanations():
    text = document("Head.\n", ALL, 100)
    assert text.startswith(f"Head.\n\n{to_markdown(ALL, 100)}\n")
    assert "- gradient with 64 codes failed: the loss is nan | at step 3\n" in text
    assert "- **PSNR, dB**: " in text


def test_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="metrics of a sweep, got fid"):
        row("ema", 4, fid=1.0)
