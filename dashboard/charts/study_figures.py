"""Figures of studies: differences, ranks, and parallel coordinates over the changes of arms."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from dashboard.charts.figures import NOTHING, ChartFigure, plain
from dashboard.palette import NEUTRAL, POLICY

ROW, MARGIN = 34, 90  # pixels
LOG_FROM = 20.0  # ratio of the largest to the smallest positive value from which an axis is logarithmic
MARK = 14  # pixels of the mark of a rank that every seed has
Value = float | str


@dataclass(frozen=True)
class DifferenceRow:
    """A difference between two arms in percentage points, with its interval."""

    label: str
    value: float
    low: float
    high: float
    distinguishable: bool


def differences(rows: Sequence[DifferenceRow]) -> ChartFigure:
    """Return differences with their intervals, one below the other."""
    if not rows:
        return NOTHING
    traces = []
    for name, chosen, colour in (("distinguishable", True, POLICY), ("not distinguishable", False, NEUTRAL)):
        shown = [(place, row) for place, row in enumerate(rows) if row.distinguishable is chosen]
        if shown:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": name,
                    "x": [row.value for _, row in shown],
                    "y": [place for place, _ in shown],
                    "marker": {"color": colour, "size": 11, "symbol": "diamond" if chosen else "circle"},
                    "error_x": {
                        "type": "data",
                        "symmetric": False,
                        "array": [row.high - row.value for _, row in shown],
                        "arrayminus": [row.value - row.low for _, row in shown],
                        "color": colour,
                        "thickness": 2,
                        "width": 5,
                    },
                    "hovertemplate": "%{x:+.1f} points",
                }
            )
    layout = _rows([row.label for row in rows], "percentage points")
    layout["xaxis"] |= {"zeroline": True, "tickformat": "+"}
    return ChartFigure(traces, layout)


def ranks(arms: Mapping[str, Sequence[float]]) -> ChartFigure:
    """Return the ranks of arms: a mark per rank, the larger the more seeds have it, and the mean."""
    measured = {name: values for name, values in arms.items() if values}
    if not measured:
        return NOTHING
    names = sorted(measured, key=lambda name: sum(measured[name]) / len(measured[name]))
    points = [(rank, row, measured[name].count(rank)) for row, name in enumerate(names) for rank in {*measured[name]}]
    most = max(count for *_, count in points)
    marks: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "name": "seeds",
        "x": [rank for rank, *_ in points],
        "y": [row for _, row, _ in points],
        "text": [f"{count} seed{'s' if count > 1 else ''}" for *_, count in points],
        "marker": {"color": NEUTRAL, "opacity": 0.55, "size": [6 + MARK * count / most for *_, count in points]},
        "hovertemplate": "rank %{x}: %{text}<extra></extra>",
    }
    means = {
        "type": "scatter",
        "mode": "markers",
        "name": "mean",
        "x": [sum(measured[name]) / len(measured[name]) for name in names],
        "y": [*range(len(names))],
        "marker": {"color": POLICY, "size": 12, "symbol": "diamond"},
        "hovertemplate": "mean rank %{x:.2f}<extra></extra>",
    }
    layout = _rows(names, "rank (1 is best)")
    layout["xaxis"] |= {"range": [0.5, len(names) + 0.5], "dtick": 1}
    return ChartFigure([marks, means], layout)


def _rows(labels: Sequence[str], x_title: str) -> dict[str, Any]:
    return {
        "height": MARGIN + ROW * len(labels),
        "margin": {"l": 52, "r": 12, "t": 8, "b": 40},
        "uirevision": "kept",
        "hovermode": "closest",
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "xanchor": "left"},
        "xaxis": {"title": {"text": x_title, "standoff": 6}, "automargin": True},
        "yaxis": {
            "tickvals": [*range(len(labels))],
            "ticktext": [plain(label) for label in labels],
            "range": [len(labels) - 0.5, -0.5],
            "automargin": True,
        },
    }


def parallel(arms: Mapping[str, Mapping[str, Value]], last: str, colours: Mapping[str, str]) -> ChartFigure:
    """Return parallel coordinates: an axis per field, a line per arm. Axes of numbers of very different size are
    logarithmic.

    Args:
        arms: values of all fields by arm.
        last: field that is the last axis, the measure.
        colours: by arm.
    """
    fields = [field for field in next(iter(arms.values()), {}) if field != last]
    if not fields:
        return NOTHING
    axes = {field: _Axis([values[field] for values in arms.values()]) for field in (*fields, last)}
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": plain(name),
            "x": [plain(field) for field in axes],
            "y": [axis.place(values[field]) for field, axis in axes.items()],
            "text": [plain(f"{field}: {shown(values[field])}") for field in axes],
            "hovertemplate": "%{text}",
            "line": {"color": colours[name], "width": 2},
            "marker": {"size": 7},
        }
        for name, values in arms.items()
    ]
    edges = [
        {"x": place, "y": y, "text": plain(text), "showarrow": False, "yshift": 14 if y else -14}
        for place, axis in enumerate(axes.values())
        for y, text in ((0.0, axis.lowest), (1.0, axis.highest))
    ]
    layout = {
        "height": 380,
        "margin": {"l": 40, "r": 40, "t": 8, "b": 40},
        "uirevision": "kept",
        "hovermode": "closest",
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.05, "yanchor": "bottom", "xanchor": "left"},
        "xaxis": {"type": "category", "automargin": True, "showgrid": True},
        "yaxis": {"visible": False, "range": [-0.15, 1.15]},
        "annotations": edges,
    }
    return ChartFigure(traces, layout)


def shown(value: Value) -> str:
    """Return a value of a field as text."""
    return value if isinstance(value, str) else f"{value:.4g}"


class _Axis:
    """Places from 0 to 1 of the values of a field: by size for numbers, at equal distances for words."""

    def __init__(self, values: Sequence[Value]) -> None:
        numbers = sorted({float(value) for value in values if not isinstance(value, str)})
        self._words = sorted({shown(value) for value in values}) if any(isinstance(one, str) for one in values) else []
        self._logarithmic = bool(numbers) and numbers[0] > 0 and numbers[-1] / numbers[0] >= LOG_FROM
        self._low, self._high = (self._scaled(numbers[0]), self._scaled(numbers[-1])) if numbers else (0.0, 1.0)
        ends = self._words or [shown(number) for number in numbers]
        self.lowest, self.highest = ends[0], ends[-1]
        if self.lowest == self.highest:
            self.highest = ""

    def place(self, value: Value) -> float:
        if self._words:
            return self._words.index(shown(value)) / max(1, len(self._words) - 1)
        assert not isinstance(value, str)
        width = self._high - self._low
        return round((self._scaled(value) - self._low) / width, 4) if width else 0.0

    def _scaled(self, value: float) -> float:
        return math.log(value) if self._logarithmic else value


def distinct(values: Sequence[Value]) -> bool:
    """Return if not all values are equal."""
    return any(first != second for first, second in pairwise(values))
