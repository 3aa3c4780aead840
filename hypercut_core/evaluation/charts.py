"""Charts as inline SVG: no script, no font, no request; colours come from the page's style sheet.

Series differ by colour, dash and marker, so that they can be told apart without colour. A class `s0` .. `s7`
picks the colour; the style sheet gives each one for light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 560, 340
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 16, 52
SERIES = 8
PER_GROUP = 6  # clips, at least, in each mean of a curve
DASHES = ("", "7 4", "2 4", "10 4 2 4", "12 5", "4 3", "1 3", "8 3 2 3 2 3")
MARKERS = ("circle", "square", "diamond", "triangle")


@dataclass(frozen=True)
class Series:
    """One curve: points in data units, its name, and the number of its style."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int


class Axes:
    """Maps data to pixels, and draws the frame, the grid and the labels."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], x_label: str, y_label: str):
        self.x = x if x[1] > x[0] else (x[0], x[0] + 1)
        self.x_ticks = [value for value in ticks(*self.x) if self.x[0] <= value <= self.x[1]]
        self.y_ticks = ticks(*y)
        self.y = (self.y_ticks[0], self.y_ticks[-1])
        self.x_label, self.y_label = x_label, y_label

    def at(self, x: float, y: float) -> tuple[float, float]:
        right = LEFT + (x - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (y - self.y[0]) / (self.y[1] - self.y[0]) * (HEIGHT - TOP - BOTTOM)
        return round(right, 1), round(down, 1)

    def draw(self) -> str:
        parts, floor = [], HEIGHT - BOTTOM
        for value in self.y_ticks:
            y = self.at(self.x[0], value)[1]
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
                         f'<text x="{LEFT - 8}" y="{y + 4.5}" text-anchor="end">{number(value)}</text>')
        for value in self.x_ticks:
            x = self.at(value, self.y[0])[0]
            parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{floor}" y2="{floor + 5}"/>'
                         f'<text x="{x}" y="{floor + 21}" text-anchor="middle">{number(value)}</text>')
        if self.y[0] < 0 < self.y[1]:
            zero = self.at(0, 0)[1]
            parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{zero}" y2="{zero}"/>')
        middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + floor) / 2
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>'
                     f'<text class="label" text-anchor="middle" x="{middle_x}" y="{HEIGHT - 9}">'
                     f'{escape(self.x_label)}</text>'
                     f'<text class="label" text-anchor="middle" transform="translate(15 {middle_y}) '
                     f'rotate(-90)">{escape(self.y_label)}</text>')
        return "".join(parts)


def line_chart(series: Sequence[Series], x_label: str, y_label: str, summary: str,
               from_zero: bool = False, y_range: tuple[float, float] | None = None) -> str:
    """Curves with markers; `summary` is what a screen reader says instead."""
    points = [point for one in series for point in one.points]
    across = _range([x for x, _ in points] + [0.0] * from_zero, 0)
    axes = Axes(across, y_range or _range([y for _, y in points]), x_label, y_label)
    return _svg(axes.draw() + "".join(_curve(axes, one) for one in series), summary)


def histogram(values: np.ndarray, x_label: str, y_label: str, summary: str) -> str:
    """Counts of finite `values`, at least 0, in equal bins."""
    values = values[np.isfinite(values)]
    bins = int(np.clip(2 * len(values) ** 0.5, 8, 32))
    high = float(values.max()) or 1.0
    counts, edges = np.histogram(values, bins=bins, range=(min(0.0, float(values.min())), high))
    axes = Axes((float(edges[0]), float(edges[-1])), (0, float(counts.max())), x_label, y_label)
    bars = []
    for count, low, up in zip(counts, edges[:-1], edges[1:], strict=True):
        (x0, y0), (x1, y1) = axes.at(float(low), float(count)), axes.at(float(up), 0)
        bars.append(f'<rect class="bar" x="{x0 + 0.5:.1f}" y="{y0}" width="{max(0.5, x1 - x0 - 1):.1f}" '
                    f'height="{y1 - y0:.1f}"><title>{number(low)} to {number(up)}: {count}</title></rect>')
    return _svg(axes.draw() + "".join(bars), summary)


def scatter_with_means(x: np.ndarray, y: np.ndarray, x_label: str, y_label: str, summary: str,
                       names: Sequence[str], bins: int = 8) -> str:
    """One dot a clip, and the mean of y in `bins` groups of equally many clips; both axes reach 0."""
    axes = Axes(_range([*x.tolist(), 0.0], 0), _range([*y.tolist(), 0.0]), x_label, y_label)
    dots = []
    for one, other, name in zip(x.tolist(), y.tolist(), names, strict=True):
        right, down = axes.at(one, other)
        dots.append(f'<circle class="dot" cx="{right}" cy="{down}" r="3"><title>{escape(name)}: '
                    f'{number(one)}, {other:.2f}</title></circle>')
    means = Series("mean of equal groups", binned_means(x, y, bins), 0)
    return _svg(axes.draw() + "".join(dots) + _curve(axes, means), summary)


def binned_means(x: np.ndarray, y: np.ndarray, bins: int) -> list[tuple[float, float]]:
    """(mean x, mean y) of groups of equally many points, by rising x."""
    order = np.argsort(x, kind="stable")
    groups = [group for group in np.array_split(order, min(bins, max(1, len(x) // PER_GROUP))) if len(group)]
    return [(float(x[group].mean()), float(y[group].mean())) for group in groups]


def legend(series: Sequence[Series]) -> str:
    """Name and a short piece of each curve, as a list outside the chart, so that it wraps on a phone."""
    entries = []
    for one in series:
        line = f'<line class="curve s{one.style % SERIES}" x1="1" x2="39" y1="7" y2="7"{_dash(one.style)}/>'
        entries.append('<li><svg class="swatch" viewBox="0 0 40 14" aria-hidden="true">'
                       f"{line}{_marker(20, 7, one.style, '')}</svg>{escape(one.name)}</li>")
    return f'<ul class="legend">{"".join(entries)}</ul>'


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`."""
    if not high > low:
        high = low + 1
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def number(value: float) -> str:
    """At most four significant digits, a true minus sign, no trailing zeros."""
    return f"{value:.4g}".replace("-", "−")


def _range(values: Sequence[float], margin: float = 0.04) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    return low - margin * (high - low), high + margin * (high - low)


def _curve(axes: Axes, series: Series) -> str:
    places = [axes.at(x, y) for x, y in series.points]
    path = " ".join(f"{x},{y}" for x, y in places)
    marks = "".join(_marker(x, y, series.style, f"{series.name}: {number(point[0])}, {point[1]:.2f}")
                    for (x, y), point in zip(places, series.points, strict=True))
    return f'<polyline class="curve s{series.style % SERIES}" points="{path}"{_dash(series.style)}/>{marks}'


def _dash(style: int) -> str:
    pattern = DASHES[style % SERIES]
    return f' stroke-dasharray="{pattern}"' if pattern else ""


def _marker(x: float, y: float, style: int, hint: str) -> str:
    title = f"<title>{escape(hint)}</title>" if hint else ""
    shape = MARKERS[style % len(MARKERS)]
    name = f'class="mark s{style % SERIES}"'
    if shape == "circle":
        return f'<circle {name} cx="{x}" cy="{y}" r="4">{title}</circle>'
    corners = {"square": ((-3.6, -3.6), (3.6, -3.6), (3.6, 3.6), (-3.6, 3.6)),
               "diamond": ((0, -5), (5, 0), (0, 5), (-5, 0)),
               "triangle": ((0, -5), (4.6, 3.6), (-4.6, 3.6))}[shape]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon {name} points="{points}">{title}</polygon>'


def _svg(body: str, summary: str) -> str:
    return (f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(summary)}">'
            f'{body}</svg>')
