"""Pictures for a report, as SVG that needs no other file: they scale, follow light and dark, and name what they show.

Values are placed here, styles are classes of the page's (`STYLE` goes into a file that stands alone). Knows no study.
Usage: ``intervals([Row("base", 0.91, 0.90, 0.92, points)], "valid/accuracy")``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#8A8A8A")  # Okabe & Ito 2008
STYLE = (
    "svg{font:13px system-ui,sans-serif;max-width:100%;height:auto}text{fill:var(--ink,#1c1c1e)}"
    ".grid{stroke:var(--line,#d8d8dc);stroke-width:1}.soft{fill:var(--soft,#6b6b70)}"
    ".zero{stroke:var(--soft,#6b6b70);stroke-dasharray:4 4}.bar{stroke-width:2.5;stroke-linecap:round}"
    ".dot{opacity:.45}.ring{stroke-width:1.5}.mean{stroke:var(--paper,#fff);stroke-width:1.5}.band{opacity:.16}.curve{fill:none;stroke-width:2}"
)
_WIDTH, _HEIGHT, _ROW = 760, 320, 30  # of a picture, of a panel with two axes, of a row
_TOP, _LEFT, _SIDE, _RIGHT = 14, 250, 64, 740  # edges: of a panel, where labels of rows end, of an axis' ticks


class Point(NamedTuple):
    """A number within a row: its value, what it is called when pointed at, and the file it comes from."""

    value: float
    name: str
    link: str = ""


class Row(NamedTuple):
    """A line of a picture of intervals; bounds may be nan; `colour` is a place in `COLOURS`."""

    label: str
    value: float
    low: float
    high: float
    points: Sequence[Point] = ()
    colour: int = 0
    note: str = ""


class Curve(NamedTuple):
    """A mean over seeds by step, with a band around it."""

    label: str
    steps: Sequence[int]
    means: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]
    colour: int = 0


class Scale(NamedTuple):
    """From values to places on the page."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Return the place."""
        share = (self._of(value) - self._of(self.low)) / ((self._of(self.high) - self._of(self.low)) or 1.0)
        return self.start + share * (self.end - self.start)

    def _of(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value

    def ticks(self, most: int = 6) -> list[float]:
        """Return round values across the scale."""
        if self.logarithmic:
            ends = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            found = [m * 10.0**e for e in range(ends[0], ends[1] + 1) for m in (1, 2, 5)]
            return [tick for tick in found if self.low <= tick <= self.high][: 2 * most]
        span = (self.high - self.low) or 1.0
        rough = 10 ** math.floor(math.log10(span / most))
        step = next(rough * m for m in (1, 2, 5, 10) if span / (rough * m) <= most)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def intervals(rows: Sequence[Row], title: str, zero: bool = False) -> str:
    """Return a row for each mean with its interval and its seeds; with `zero` a line there, as for differences."""
    values = [v for row in rows for v in (row.value, row.low, row.high, *(p.value for p in row.points))]
    scale = Scale(*_bounds([*values, 0.0] if zero else values), _LEFT, _RIGHT)
    bottom = _TOP + _ROW * len(rows)
    parts = [_axis(scale, bottom), _text(_RIGHT, bottom + 38, title, "end", "soft")]
    if zero:
        parts.append(_line(scale(0), _TOP, scale(0), bottom, class_="zero"))
    parts += [_row(row, scale, _TOP + _ROW * (place + 0.5)) for place, row in enumerate(rows)]
    return _whole(parts, bottom + 46, title)


def _row(row: Row, scale: Scale, y: float) -> str:
    colour = _colour(row.colour)
    parts = [_text(_LEFT - 12, y + 4, _cut(row.label, 32), "end", name=row.label)]
    for point in row.points:
        dot = _dot(scale(point.value), y, 3.5, "dot", point.name, fill=colour)
        parts.append(_tag("a", dot, href=point.link) if point.link else dot)
    if math.isfinite(row.low) and math.isfinite(row.high):
        parts.append(_line(scale(row.low), y, scale(row.high), y, class_="bar", stroke=colour))
    parts.append(_dot(scale(row.value), y, 5.5, "mean", f"{row.label}: {row.note}", fill=colour))
    return _tag("g", "".join(parts))


def curves(found: Sequence[Curve], title: str) -> str:
    """Return a line for each arm over steps with the band of its seeds; the legend stands below."""
    steps = [step for curve in found for step in curve.steps]
    across = Scale(min(steps), max(steps), _SIDE, _RIGHT)
    up = Scale(*_bounds([v for c in found for v in (*c.lows, *c.highs, *c.means)]), _HEIGHT, _TOP)
    parts = [_axis(across, _HEIGHT), _side(up), *_titles(title, "step")]
    for curve in found:
        above, below, line = (
            [f"{across(s):.1f},{up(v):.1f}" for s, v in zip(curve.steps, values, strict=True)]
            for values in (curve.highs, curve.lows, curve.means)
        )
        colour, name = _colour(curve.colour), _tag("title", escape(curve.label))
        band = _tag("polygon", points=" ".join([*above, *reversed(below)]), fill=colour, class_="band")
        stroke = _tag("polyline", name, points=" ".join(line), stroke=colour, class_="curve")
        parts.append(_tag("g", band + stroke, data_arm=curve.label))
    legend, bottom = _legend([(curve.label, curve.colour) for curve in found])
    return _whole([*parts, legend], bottom, title)


def scatter(rows: Sequence[Row], costs: Sequence[float], best: Sequence[bool], across_title: str, title: str) -> str:
    """Return quality against cost, on a logarithmic axis; what no other beats is ringed."""
    across = Scale(min(costs) / 1.3, max(costs) * 1.3, _SIDE, _RIGHT, logarithmic=True)
    up = Scale(*_bounds([v for row in rows for v in (row.value, row.low, row.high)]), _HEIGHT, _TOP)
    parts = [_axis(across, _HEIGHT), _side(up), *_titles(title, across_title)]
    for row, cost, is_best in zip(rows, costs, best, strict=True):
        colour, x, y = _colour(row.colour), across(cost), up(row.value)
        if math.isfinite(row.low):
            parts.append(_line(x, up(row.low), x, up(row.high), class_="bar", stroke=colour))
        if is_best:
            parts.append(_dot(x, y, 9, "ring", stroke=colour, fill="none"))
        parts.append(_dot(x, y, 5, "mean", f"{row.label}: {row.note}", fill=colour))
    legend, bottom = _legend([(row.label, row.colour) for row in rows])
    return _whole([*parts, legend], bottom, f"{title} by {across_title}")


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    """Return bounds that hold all finite values, with a little space around."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    space = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - space, high + space


def _axis(scale: Scale, bottom: float) -> str:
    return "".join(
        _line(scale(tick), _TOP, scale(tick), bottom, class_="grid")
        + _text(scale(tick), bottom + 18, _tick(tick), "middle", "soft")
        for tick in scale.ticks()
    )


def _side(scale: Scale) -> str:
    return "".join(
        _line(_SIDE, scale(tick), _RIGHT, scale(tick), class_="grid")
        + _text(_SIDE - 8, scale(tick) + 4, _tick(tick), "end", "soft")
        for tick in scale.ticks()
    )


def _titles(up: str, across: str) -> list[str]:
    return [_text(_SIDE, _HEIGHT + 38, up, "start", "soft"), _text(_RIGHT, _HEIGHT + 38, across, "end", "soft")]


def _legend(names: Sequence[tuple[str, int]]) -> tuple[str, float]:
    """Return the legend in two columns, and where it ends."""
    parts = []
    for place, (name, colour) in enumerate(names):
        x, y = _SIDE + (place % 2) * 350, _HEIGHT + 62 + (place // 2) * 22
        inside = _dot(x, y - 4, 5, "key", fill=_colour(colour)) + _text(x + 12, y, _cut(name, 44), "start")
        parts.append(_tag("g", inside, class_="key", data_key=name))
    return "".join(parts), _HEIGHT + 62 + (len(names) + 1) // 2 * 22


def _whole(parts: Sequence[str], height: float, title: str) -> str:
    size = {"viewBox": f"0 0 {_WIDTH} {height:.0f}", "width": str(_WIDTH), "height": f"{height:.0f}"}
    return _tag("svg", "".join(parts), xmlns="http://www.w3.org/2000/svg", **size, role="img", aria_label=title)


def _tag(tag: str, inside: str = "", **attributes: str) -> str:
    """Return an element; names of attributes have an underscore where theirs has a dash, or a keyword's at the end."""
    given = "".join(f' {n.rstrip("_").replace("_", "-")}="{escape(v)}"' for n, v in attributes.items())
    return f"<{tag}{given}>{inside}</{tag}>"


def _line(x1: float, y1: float, x2: float, y2: float, **attributes: str) -> str:
    return _tag("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", **attributes)


def _dot(x: float, y: float, radius: float, kind: str, name: str = "", **attributes: str) -> str:
    inside = _tag("title", escape(name)) if name else ""
    return _tag("circle", inside, cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{radius:g}", class_=kind, **attributes)


def _text(x: float, y: float, text: str, anchor: str, kind: str = "name", name: str = "") -> str:
    inside = escape(text) + (_tag("title", escape(name)) if name and name != text else "")
    return _tag("text", inside, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=kind)


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _tick(value: float) -> str:
    if abs(value) >= 1e4:
        exponent = min(4, int(math.log10(abs(value))) // 3)
        return f"{value / 1000**exponent:g}{('', ' k', ' M', ' G', ' T')[exponent]}"
    return f"{value:.6g}".replace("-", "−")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
