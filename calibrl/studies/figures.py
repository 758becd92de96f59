"""Figures of a study's report as SVG, without a library: they need no script and no network."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

# Distinguishable for most colour-blind readers (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5f5f5f", "#a89f00")
DASHES = ("none", "6 3", "2 3", "8 3 2 3")  # after the colours are used up
WIDTH, LEFT, RIGHT, ROW, AXIS = 760, 240, 30, 30, 46  # pixels
CURVE_HEIGHT, CURVE_LEFT = 300, 60
TICKS = 5
TEXT = 'font-family="sans-serif" font-size="13" fill="#222"'


@dataclass(frozen=True)
class Interval:
    """A row of a figure of differences."""

    label: str
    value: float
    low: float
    high: float
    distinguishable: bool


def differences(rows: Sequence[Interval], title: str, unit: str) -> str:
    """Return differences of a unit with their intervals, one below the other, about a line at 0."""
    low, high = min([0.0, *(row.low for row in rows)]), max([0.0, *(row.high for row in rows)])
    margin = 0.05 * (high - low) or 1.0
    low, high = low - margin, high + margin

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    bottom = ROW * len(rows) + 10
    parts = [f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="0" y2="{bottom}" stroke="#999" stroke-dasharray="4 3"/>']
    for place, row in enumerate(rows):
        y = ROW * place + ROW / 2 + 5
        colour = COLOURS[0] if row.distinguishable else COLOURS[6]
        parts += [
            f'<text x="8" y="{y + 4:.1f}" {TEXT}>{escape(row.label)}</text>',
            f'<path d="M{x(row.low):.1f} {y}H{x(row.high):.1f}" stroke="{colour}" stroke-width="2"/>',
            f'<circle cx="{x(row.value):.1f}" cy="{y}" r="5" fill="{colour}"/>',
        ]
    for tick in _ticks(low, high):
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 18}" {TEXT} text-anchor="middle">{_signed(tick)}</text>')
    caption = f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{bottom + 38}" {TEXT} text-anchor="middle">{escape(unit)}</text>'
    return _svg(bottom + AXIS, title, [*parts, caption])


def curves(lines: Mapping[str, Sequence[Sequence[tuple[float, float]]]], title: str, unit: str) -> str:
    """Return accuracies (0 to 1) over an amount, one line per run, in the colour of its arm."""
    points = [point for runs in lines.values() for run in runs for point in run]
    widest = max((amount for amount, _ in points), default=0.0) or 1.0
    top = max((accuracy for _, accuracy in points), default=0.0) or 1.0
    bottom = CURVE_HEIGHT

    def place(amount: float, accuracy: float) -> str:
        x = CURVE_LEFT + amount / widest * (WIDTH - CURVE_LEFT - RIGHT)
        return f"{x:.1f},{bottom - accuracy / top * (bottom - 20):.1f}"

    parts = [f'<line x1="{CURVE_LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}" stroke="#999"/>']
    for number, (arm, runs) in enumerate(lines.items()):
        stroke = f'stroke="{COLOURS[number % len(COLOURS)]}" stroke-dasharray="{DASHES[number // len(COLOURS)]}"'
        for run in runs:
            path = " ".join(place(*point) for point in run)
            parts.append(f'<polyline points="{path}" fill="none" stroke-width="1.5" {stroke}/>')
        y = bottom + 60 + 20 * number
        parts.append(f'<line x1="{CURVE_LEFT}" x2="{CURVE_LEFT + 30}" y1="{y}" y2="{y}" stroke-width="3" {stroke}/>')
        parts.append(f'<text x="{CURVE_LEFT + 40}" y="{y + 4}" {TEXT}>{escape(arm)}</text>')
    for tick in _ticks(0, widest):
        x = place(tick, 0).partition(",")[0]
        parts.append(f'<text x="{x}" y="{bottom + 18}" {TEXT} text-anchor="middle">{tick:,g}</text>')
    for tick in _ticks(0, top):
        y_text = place(0, tick).partition(",")[2]
        parts.append(f'<text x="{CURVE_LEFT - 8}" y="{y_text}" {TEXT} text-anchor="end">{tick:.0%}</text>')
    parts.append(f'<text x="{WIDTH / 2:.0f}" y="{bottom + 38}" {TEXT} text-anchor="middle">{escape(unit)}</text>')
    return _svg(bottom + 60 + 20 * len(lines), title, parts)


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{escape(title)}</title>'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>', *parts, "</svg>"])


def _signed(number: float) -> str:
    return f"{number:+g}" if number else "0"


def _ticks(low: float, high: float) -> list[float]:
    """Return about TICKS round numbers between two bounds."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if power * factor >= rough)
    return [round(step * number, 10) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
