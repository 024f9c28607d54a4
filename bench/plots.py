"""Plots as SVG text: bars with spread, latencies by percentile, lines over time, stacked costs. No library, no script.

Colours come from the page's style sheet (``report``), so that the plots follow it into dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, LEFT, RIGHT = 860, 310, 110
BAR, GAP = 18, 8
PLOT_HEIGHT, TOP, BOTTOM, SIDE = 240, 12, 40, 64
COLOURS = 6  # classes c0 … c5
NINES = ((0.0, "0"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %"))


def short(value: float) -> str:
    """A number as an axis shows it."""
    for bound, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= bound:
            return f"{value / bound:.3g} {suffix}"
    return f"{value:.3g}"


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'


def bars(rows: Sequence[tuple[str, float, float, float, int]], title: str) -> str:
    """Horizontal bars: (name, value, least, greatest, colour); the spread as a whisker."""
    top = max((row[3] for row in rows), default=1.0) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / top
    parts = []
    for number, (name, value, least, greatest, colour) in enumerate(rows):
        y = number * (BAR + GAP) + GAP
        middle = y + BAR / 2
        parts.append(_text(LEFT - 8, middle + 4, name, "end"))
        parts.append(
            f'<rect x="{LEFT}" y="{y}" width="{max(1.0, value * scale):.1f}" height="{BAR}" rx="2" class="c{colour}"/>'
        )
        if greatest > least:
            x1, x2 = LEFT + least * scale, LEFT + greatest * scale
            parts.append(
                f'<path d="M{x1:.1f} {middle - 5}v10M{x1:.1f} {middle}H{x2:.1f}M{x2:.1f} {middle - 5}v10" class="whisker"/>'
            )
        parts.append(_text(LEFT + greatest * scale + 8, middle + 4, short(value), kind="value"))
    return _svg(WIDTH, len(rows) * (BAR + GAP) + GAP, parts, title)


def stacked(rows: Sequence[tuple[str, Mapping[str, float]]], roles: Sequence[str], title: str, unit: str) -> str:
    """Horizontal bars of parts, in the order of ``roles``; the sum at the end."""
    top = max((sum(parts.values()) for _, parts in rows), default=1.0) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / top
    drawn = []
    for number, (name, values) in enumerate(rows):
        y = number * (BAR + GAP) + GAP
        drawn.append(_text(LEFT - 8, y + BAR / 2 + 4, name, "end"))
        x = float(LEFT)
        for colour, role in enumerate(roles):
            width = values.get(role, 0.0) * scale
            if width > 0:
                tip = escape(f"{role}: {values[role]:.2f} {unit}")
                drawn.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" class="c{colour % COLOURS}">'
                    f"<title>{tip}</title></rect>"
                )
                x += width
        drawn.append(_text(x + 8, y + BAR / 2 + 4, f"{short(sum(values.values()))} {unit}", kind="value"))
    return _svg(WIDTH, len(rows) * (BAR + GAP) + GAP, drawn, title)


def nines(share: float) -> float:
    """Where a percentile lies on the axis of nines: 90 % at 1, 99 % at 2, 99.9 % at 3."""
    return -math.log10(max(1 - share / 100, 10 ** -NINES[-1][0]))


def ticks(top: float, most: int = 5) -> list[float]:
    """Round numbers from 0 to at least ``top``."""
    if top <= 0:
        return [0.0, 1.0]
    step = 10 ** math.floor(math.log10(top / most))
    step *= next(factor for factor in (1, 2, 5, 10) if step * factor * most >= top)
    count = math.ceil(top / step - 1e-9)
    return [number * step for number in range(count + 1)]


def latency_curves(curves: Mapping[str, Sequence[tuple[float, float]]], title: str) -> str:
    """Percentile → milliseconds, both axes logarithmic: the tail is as wide as the middle."""
    values = [ms for points in curves.values() for _, ms in points if ms > 0]
    if not values:
        return ""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
    high = max(high, low + 1)
    x_scale, y_scale = (WIDTH - SIDE - RIGHT) / NINES[-1][0], (PLOT_HEIGHT - TOP - BOTTOM) / (high - low)
    floor = PLOT_HEIGHT - BOTTOM
    parts = []
    for decade in range(low, high + 1):
        y = floor - (decade - low) * y_scale
        parts.append(f'<path d="M{SIDE} {y:.1f}H{WIDTH - RIGHT}" class="grid"/>')
        parts.append(_text(SIDE - 8, y + 4, f"{10.0**decade:g} ms", "end"))
    for at, name in NINES:
        parts.append(_text(SIDE + at * x_scale, floor + 18, name, "middle"))
    for colour, (name, points) in enumerate(curves.items()):
        where = [
            f"{SIDE + nines(share) * x_scale:.1f} {floor - (math.log10(ms) - low) * y_scale:.1f}"
            for share, ms in points
            if ms > 0
        ]
        parts.append(
            f'<path d="M{"L".join(where)}" class="line s{colour % COLOURS}"><title>{escape(name)}</title></path>'
        )
    return _svg(WIDTH, PLOT_HEIGHT, parts, title)


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]], title: str, unit: str, marks: Sequence[float] = ()
) -> str:
    """Values over seconds; ``marks``: moments to show, such as a kill."""
    points = [point for one in series.values() for point in one]
    if not points:
        return ""
    end = max(x for x, _ in points) or 1.0
    levels = ticks(max(y for _, y in points))
    x_scale, y_scale = (WIDTH - SIDE - RIGHT) / end, (PLOT_HEIGHT - TOP - BOTTOM) / levels[-1]
    floor = PLOT_HEIGHT - BOTTOM
    parts = []
    for level in levels:
        y = floor - level * y_scale
        parts.append(
            f'<path d="M{SIDE} {y:.1f}H{WIDTH - RIGHT}" class="grid"/>' + _text(SIDE - 8, y + 4, short(level), "end")
        )
    for at in ticks(end, 8):
        if at <= end:
            parts.append(_text(SIDE + at * x_scale, floor + 18, f"{at:g} s", "middle"))
    parts.append(_text(WIDTH - RIGHT + 8, TOP + 10, unit))
    for at in marks:
        parts.append(f'<path d="M{SIDE + at * x_scale:.1f} {TOP}V{floor}" class="mark"/>')
    for colour, (name, one) in enumerate(series.items()):
        if not one:
            continue
        where = "L".join(f"{SIDE + x * x_scale:.1f} {floor - y * y_scale:.1f}" for x, y in one)
        parts.append(f'<path d="M{where}" class="line s{colour % COLOURS}"><title>{escape(name)}</title></path>')
    return _svg(WIDTH, PLOT_HEIGHT, parts, title)


def legend(names: Sequence[str]) -> str:
    """The colours by name, as HTML."""
    return '<p class="legend">' + " ".join(
        f'<span><i class="b{number % COLOURS}"></i>{escape(name)}</span>' for number, name in enumerate(names)
    ) + "</p>"  # fmt: skip
