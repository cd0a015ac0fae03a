"""Line plots as inline SVG, with colours by CSS class for light, dark and print."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.report.formatting import format_number
from pipelines.report.markup import element, text

# In units of the view box, about pixels of a page.
WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 14, 40
_LETTER = 7  # width of a letter, to keep labels apart
_NUM_TICKS = 5
_LARGEST = 1e100  # the arithmetic of axes overflows far beyond


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Points of one curve."""

    label: str
    """Its name in the legend."""
    style: Literal["train", "validation", "reference"]
    """Colour, dashes and markers, see style.css; colour is never the only difference."""
    points: Sequence[tuple[float, float]]
    """(x, y) by increasing x; points not finite, or beyond 1e100, are left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A dashed vertical line."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values to coordinates of the view box."""

    low: float
    high: float
    start: float
    """Coordinate of `low`."""
    end: float
    """Coordinate of `high`."""
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Returns the coordinate of `value`."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Returns round values in [low, high]."""
        return log_ticks(self.low, self.high) if self.logarithmic else ticks(self.low, self.high)


def ticks(low: float, high: float) -> list[float]:
    """Returns about five values in [low, high], 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / _NUM_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Returns 1, 2 and 5 times powers of ten in [low, high]; powers only over many decades."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(decades) > 4 else (1, 2, 5)
    every = 1 + len(decades) // 9
    found = [n * 10.0**i for i in decades if i % every == 0 for n in factors]
    return [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]


def curve_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    logarithmic: bool = False,
    mark: Mark | None = None,
    summary: str = "",
) -> str:
    """Draws a `figure` element with a title, curves, and a legend of several; "" without points.

    The x axis includes 0. A logarithmic y axis becomes linear if a value is below 1e-100. `summary`
    becomes the alternative text.
    """
    series = [_drawable(s) for s in series]
    series = [s for s in series if s.points]
    if not series:
        return ""
    points = [point for s in series for point in s.points]
    logarithmic = logarithmic and min(y for _, y in points) >= 1 / _LARGEST
    x = Axis(*_padded([0, *(p[0] for p in points)], 0.0), LEFT, WIDTH - RIGHT)
    y = Axis(*_padded([p[1] for p in points], 0.06, logarithmic), HEIGHT - BOTTOM, TOP, logarithmic)
    plot = element(
        "svg",
        element("title", text(f"{title}. {summary}".strip())),
        _grid(x, y, x_label),
        _mark_line(mark, x) if mark else "",
        *(_curve(s, x, y) for s in series),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
    )
    legend = [element("li", _key(s.style), text(s.label)) for s in series if len(series) > 1]
    if mark:
        legend.append(element("li", _key("mark"), text(mark.label)))
    head = element("span", text(title), class_="title")
    head += element("ul", *legend, class_="legend") if legend else ""
    return element("figure", element("figcaption", head), plot, class_="chart")


def _curve(series: Series, x: Axis, y: Axis) -> str:
    positions = [(x(a), y(b)) for a, b in series.points]
    joined = " ".join(f"{a:.2f},{b:.2f}" for a, b in positions)
    line = element("polyline", points=joined, class_=f"line {series.style}")
    if series.style != "validation" or len(positions) > 60:
        return line
    for (a, b), (step, value) in zip(positions, series.points, strict=True):
        label = text(f"{series.label}: {format_number(value)} at {format_number(step)}")
        at = {"cx": f"{a:.2f}", "cy": f"{b:.2f}"}
        line += element("circle", element("title", label), **at, r=3, class_="dot validation")
    return line


def _grid(x: Axis, y: Axis, x_label: str) -> str:
    parts, bottom = [], HEIGHT - BOTTOM
    for value in y.ticks():
        at = f"{y(value):.2f}"
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, class_="grid"))
        parts.append(_label(format_number(value), LEFT - 7, y(value) + 4, "end"))
    for value in _apart(x.ticks(), x):
        at = f"{x(value):.2f}"
        parts.append(element("line", x1=at, x2=at, y1=bottom, y2=bottom + 4, class_="axis"))
        parts.append(_label(format_number(value), x(value), bottom + 18, "middle"))
    parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="axis"))
    parts.append(_label(x_label, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, "middle"))
    return "".join(parts)


def _mark_line(mark: Mark, x: Axis) -> str:
    at = f"{x(mark.x):.2f}"
    return element("line", x1=at, x2=at, y1=TOP, y2=HEIGHT - BOTTOM, class_="mark")


def _label(content: str, x: float, y: float, anchor: str) -> str:
    return element("text", text(content), x=f"{x:.2f}", y=f"{y:.2f}", text_anchor=anchor)


def _key(style: str) -> str:
    """Draws the piece of a curve for the legend."""
    if style == "mark":
        key = element("line", x1=11, x2=11, y1=0, y2=12, class_="mark")
    else:
        key = element("line", x1=0, x2=22, y1=6, y2=6, class_=f"line {style}")
    if style == "validation":
        key += element("circle", cx=11, cy=6, r=3, class_="dot validation")
    return element("svg", key, viewBox="0 0 22 12", width=22, height=12, aria_hidden="true")


def _apart(values: list[float], x: Axis) -> list[float]:
    """Keeps every n-th tick, so that the labels do not overlap."""
    if len(values) < 2:
        return values
    widest = max(len(format_number(value)) for value in values) * _LETTER + 12
    return values[:: max(1, math.ceil(widest / (x(values[1]) - x(values[0]))))]


def _drawable(series: Series) -> Series:
    kept = [p for p in series.points if abs(p[0]) <= _LARGEST and abs(p[1]) <= _LARGEST]
    return Series(label=series.label, style=series.style, points=kept)


def _padded(
    values: Sequence[float], share: float, logarithmic: bool = False
) -> tuple[float, float]:
    """Returns the range of values, widened by a share of it on each side; never empty."""
    to: Callable[[float], float] = math.log if logarithmic else float
    back: Callable[[float], float] = math.exp if logarithmic else float
    low, high = to(min(values)), to(max(values))
    if high - low < 1e-9 * max(1.0, abs(low)):
        margin = max(0.5, 1e-6 * abs(low))  # 0.5 is lost in a huge number
        low, high = low - margin, high + margin
    padding = share * (high - low)
    return back(low - padding), back(high + padding)
