"""Marks at the edge of a chart: values that its lines cannot show, and alerts, each at its step."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboard.charts.series import StepSeries, spikes
from dashboard.palette import WRONG

TOP, BOTTOM = 0.96, 0.03  # share of the height of the chart
# The axis of the marks lies over the one of the values, and does not follow its zoom.
AXIS = {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
NOT_FINITE, OUTSIDE, ALERT = "NaN or infinite", "beyond the axis", "health alert"
SYMBOLS = {NOT_FINITE: "x", OUTSIDE: "triangle-up", ALERT: "star"}


@dataclass(frozen=True)
class Mark:
    """A mark at a place of the x axis, with its text on hover."""

    at: int
    text: str
    top: bool = False


def not_finite(name: str, series: StepSeries) -> list[Mark]:
    """Return a mark for each value of a curve, or bucket with values, that are NaN or infinite."""
    found = []
    for index in np.flatnonzero(series.non_finite).tolist():
        count = int(series.non_finite[index])
        text = f"{name}: {NOT_FINITE}" if count == 1 else f"{name}: {count} values {NOT_FINITE}"
        found.append(Mark(int(series.steps[index]), text))
    return found


def outside(name: str, series: StepSeries, low: float, high: float) -> list[Mark]:
    """Return a mark for each value of a curve that is beyond the axis from `low` to `high`."""
    drawn = spikes(series)
    steps, values = drawn.steps.tolist(), drawn.values.tolist()
    return [
        Mark(step, f"{name}: {value:.4g} {OUTSIDE}", value > high)
        for step, value in dict.fromkeys(zip(steps, values, strict=True))
        if value < low or value > high
    ]


def traces(kinds: Iterable[tuple[str, Sequence[Mark]]]) -> list[dict[str, Any]]:
    """Return a trace for each kind of mark (name, marks) that there is."""
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": kind,
            "yaxis": "y2",
            "x": [mark.at for mark in marks],
            "y": [TOP if mark.top else BOTTOM for mark in marks],
            "text": [mark.text for mark in marks],
            "hovertemplate": "%{text}<extra></extra>",
            "cliponaxis": False,
            "marker": {"color": WRONG, "size": 8, "symbol": SYMBOLS[kind]},
        }
        for kind, marks in kinds
        if marks
    ]


def upright(marks: Sequence[Mark]) -> list[dict[str, Any]]:
    """Return a line over the whole height of the chart for each mark."""
    line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "line": {"color": WRONG, "width": 1, "dash": "dot"}}
    return [{**line, "x0": mark.at, "x1": mark.at} for mark in marks]
