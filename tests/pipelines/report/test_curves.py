"""Curves as SVG: positions of points, ticks and labels."""

import math
import xml.etree.ElementTree as ElementTree

import pytest

from pipelines.report.curves import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Mark,
    Series,
    curve_chart,
    log_ticks,
    ticks,
)


def line(style, *points):
    return Series(label=style, style=style, points=points)


def parsed(*series, **options):
    return ElementTree.fromstring(curve_chart("Loss", series, x_label="step", **options))


def drawn(chart, style):
    """Coordinates of the points of a curve."""
    (found,) = [e for e in chart.iter("polyline") if e.get("class") == f"line {style}"]
    return [tuple(map(float, pair.split(","))) for pair in found.get("points").split()]


def labels(chart):
    """Coordinate by label of every tick of the y axis, and of the x axis."""
    texts = [(t.text, float(t.get("x")), float(t.get("y"))) for t in chart.iter("text")]
    return (
        {t: y - 4 for t, x, y in texts if x < LEFT},
        {t: x for t, x, y in texts if x >= LEFT and t != "step"},
    )


def test_points_lie_on_the_scale_that_the_ticks_show():
    points = [(0, 1.0), (25, 3.0), (100, 9.0)]
    chart = parsed(line("train", *points))
    y, x = labels(chart)
    # Two ticks say where every value lies; coordinates are rounded to 0.01, which adds up.
    for (a, b), (left, top) in zip(points, drawn(chart, "train"), strict=True):
        assert left == pytest.approx(x["0"] + a / 20 * (x["20"] - x["0"]), abs=0.06)
        assert top == pytest.approx(y["2"] + (b - 2) / 2 * (y["4"] - y["2"]), abs=0.06)


def test_logarithmic_axis_gives_equal_factors_equal_room():
    chart = parsed(line("train", (0, 1000.0), (1, 10.0), (2, 0.1)), logarithmic=True)
    (_, first), (_, second), (_, third) = drawn(chart, "train")
    assert second - first == pytest.approx(third - second, abs=0.02)
    y, _ = labels(chart)
    assert y["100"] - y["1,000"] == pytest.approx(y["0.1"] - y["1"], abs=0.02)


def test_axis_is_linear_where_a_value_has_no_logarithm():
    chart = parsed(line("train", (0, 4.0), (1, 2.0), (2, 0.0)), logarithmic=True)
    (_, first), (_, second), (_, third) = drawn(chart, "train")
    assert second - first == pytest.approx(third - second, abs=0.02)


def test_both_curves_share_the_axes():
    chart = parsed(line("train", (1, 1.0), (2, 5.0)), line("validation", (1, 5.0), (2, 1.0)))
    train, validation = drawn(chart, "train"), drawn(chart, "validation")
    assert (train[0][0], train[0][1]) == (validation[0][0], validation[1][1])
    assert [li.find("svg").tail for li in chart.iter("li")] == ["train", "validation"]


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [
        ((0.0, 0.0), False),
        ((-1e100, 1e100), False),
        ((2.0**63, 2.0**63), True),
        ((1e100, 1e-100), True),
        ((5e-324, 1.0), True),
    ],
)
def test_everything_stays_inside_the_frame(values, logarithmic):
    chart = parsed(line("validation", *enumerate(values)), logarithmic=logarithmic)
    for x, y in drawn(chart, "validation"):
        assert LEFT <= x <= WIDTH - RIGHT
        assert TOP <= y <= HEIGHT - BOTTOM
    y, x = labels(chart)
    assert all(TOP <= at <= HEIGHT - BOTTOM for at in y.values())
    assert all(LEFT <= at <= WIDTH - RIGHT + 0.01 for at in x.values())


def test_single_point_is_drawn():
    assert len(drawn(parsed(line("validation", (10, 0.5))), "validation")) == 1


def test_values_that_are_not_finite_or_enormous_are_left_out():
    chart = parsed(line("train", (0, 1.0), (1, math.nan), (2, math.inf), (3, -1e101), (4, 2.0)))
    assert len(drawn(chart, "train")) == 2


def test_nothing_is_drawn_without_points():
    assert curve_chart("Loss", [line("train")], x_label="step") == ""


def test_validation_points_say_their_values():
    chart = parsed(line("validation", (148, 0.04215), (296, 0.02373)))
    said = [c.find("title").text for c in chart.iter("circle") if c.find("title") is not None]
    assert said == ["validation: 0.04215 at 148", "validation: 0.02373 at 296"]


def test_mark_stands_at_its_step_and_in_the_legend():
    chart = parsed(line("train", (0, 1.0), (100, 2.0)), mark=Mark(x=100, label="best: step 100"))
    _, plot = chart.findall("figcaption/ul")[0], chart.findall("svg")[0]
    (at,) = [e.get("x1") for e in plot.findall("line") if e.get("class") == "mark"]
    assert float(at) == drawn(chart, "train")[-1][0]
    assert [li.find("svg").tail for li in chart.iter("li")] == ["best: step 100"]


def test_plot_has_alternative_text():
    chart = parsed(line("train", (0, 1.0), (1, 2.0)), summary="From 1 to 2.")
    plot = chart.find("svg")
    assert plot.get("role") == "img"
    assert plot.find("title").text == "Loss. From 1 to 2."


def test_texts_are_escaped():
    series = Series(label="<&>", style="train", points=[(0, 1.0)])
    other = Series(label='"', style="validation", points=[(0, 1.0)])
    chart = ElementTree.fromstring(curve_chart("<a>", [series, other], x_label="&"))
    assert chart.find("figcaption/span/span") is None
    assert [li.find("svg").tail for li in chart.iter("li")] == ["<&>", '"']


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (19.7, 25.1, [20, 22, 24]),
        (148, 1484, [500, 1000]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.012, 0.6, [0.02, 0.05, 0.1, 0.2, 0.5]),
        (1, 1e6, [1, 10, 100, 1e3, 1e4, 1e5, 1e6]),
    ],
)
def test_logarithmic_ticks_are_round(low, high, expected):
    assert log_ticks(low, high) == pytest.approx(expected)
