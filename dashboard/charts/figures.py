"""Data in, Plotly figure out. A figure is the plain JSON that Plotly draws: building it is too frequent to validate.

Whoever looks at the same curves gets the same figure, made once. Colours that depend on the light or dark theme are
left out here; `live_chart.js` fills them in.
"""

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dashboard.charts.series import HistogramColumns, Series, smoothed, spikes
from dashboard.palette import CORRECT, MODELS, NEUTRAL, WRONG, faded

Trace = dict[str, Any]

HEIGHT = 270  # pixels
MARKED = 60  # points from which a sparse curve goes without a mark at each
SMOOTH_FROM = 24  # points from which a curve is shown smoothed, with the raw line behind it
KEPT = 256  # figures of each kind that are kept, for whoever looks next

Share = Literal["of_all", "small"]


@dataclass(frozen=True, eq=False)
class Figure:
    """What Plotly draws; no one may change it, as viewers share it."""

    data: list[Trace]
    layout: dict[str, Any]

    @cached_property
    def json(self) -> str:
        return json.dumps({"data": self.data, "layout": self.layout}, allow_nan=False, separators=(",", ":"))


NOTHING = Figure([], {})


@dataclass(frozen=True)
class Curve:
    """One line of a chart."""

    name: str
    series: Series
    colour: str
    dash: str = "solid"
    sparse: bool = False  # measured now and then: drawn with a mark at every point, and not smoothed
    raw: bool = True  # a smoothed curve has the raw line behind it
    band: bool = False  # from `low` to `high` of the series is filled


def plain(text: str) -> str:
    """Text that Plotly shows as it is: it takes a few HTML tags for markup."""
    return html.escape(text, quote=False)


def numbers(values: NDArray[np.float64]) -> list[float | None]:
    """Values as JSON can say them, to five digits; one that is not finite is a gap."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values.tolist()]


def _layout(y_title: str, x_title: str = "step", **more: Any) -> dict[str, Any]:
    return {
        "height": HEIGHT,
        "margin": {"l": 52, "r": 12, "t": 8, "b": 40},
        "uirevision": "kept",  # zoom and hidden lines survive a redraw
        "hovermode": "x unified",
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "xanchor": "left"},
        "xaxis": {"title": {"text": plain(x_title), "standoff": 6}, "rangemode": "tozero", "automargin": True},
        "yaxis": {"title": {"text": plain(y_title), "standoff": 8}, "automargin": True, **more.pop("yaxis", {})},
        **more,
    }


def _area(curve: Curve) -> list[Trace]:
    """The band of a curve that has one."""
    if not curve.band:
        return []
    steps, series = curve.series.steps.tolist(), curve.series
    edge = {"type": "scatter", "mode": "lines", "legendgroup": plain(curve.name), "x": steps, "hoverinfo": "skip"}
    edge |= {"showlegend": False, "line": {"width": 0, "color": curve.colour}}
    return [
        {**edge, "name": f"{plain(curve.name)} (least)", "y": numbers(series.low)},
        {
            **edge,
            "name": f"{plain(curve.name)} (greatest)",
            "y": numbers(series.high),
            "fill": "tonexty",
            "fillcolor": faded(curve.colour, 0.2),
        },
    ]


def _line(curve: Curve, value_format: str) -> list[Trace]:
    name = plain(curve.name)
    line = {"color": curve.colour, "width": 2.2, "dash": curve.dash}
    hover = f"%{{y:{value_format}}}"
    shown = curve.series if curve.band else spikes(curve.series)
    if curve.sparse or len(curve.series) < SMOOTH_FROM:
        shown = curve.series
        return [
            {
                "type": "scatter",
                "mode": "lines+markers" if len(curve.series) < (MARKED if curve.sparse else 3) else "lines",
                "name": name,
                "x": shown.steps.tolist(),
                "y": numbers(shown.values),
                "line": line,
                "marker": {"color": curve.colour, "size": 6, "symbol": "diamond" if curve.sparse else "circle"},
                "hovertemplate": hover,
            }
        ]
    smooth = smoothed(curve.series)
    common = {"type": "scatter", "mode": "lines", "legendgroup": name}
    raw = [
        {
            **common,
            "name": f"{name} (each step)",
            "x": shown.steps.tolist(),
            "y": numbers(shown.values),
            "line": {"color": faded(curve.colour, 0.3), "width": 1},
            "showlegend": False,
            "hoverinfo": "skip",
        }
    ]
    return [
        *(raw if curve.raw else []),
        {
            **common,
            "name": name,
            "x": smooth.steps.tolist(),
            "y": numbers(smooth.values),
            "line": line,
            "hovertemplate": hover,
        },
    ]


def curves(
    lines: Sequence[Curve],
    *,
    unit: str,
    x_title: str = "step",
    share: Share | None = None,
    zero_line: bool = False,
    value_format: str = ".3f",
) -> Figure:
    """Lines over steps. `share`: values from 0 to 1 as percentages, on an axis to 100 % or, if small, to their top."""
    return _curves(tuple(lines), unit, x_title, share, zero_line, value_format)


@lru_cache(KEPT)
def _curves(
    lines: tuple[Curve, ...], unit: str, x_title: str, share: Share | None, zero_line: bool, value_format: str
) -> Figure:
    yaxis: dict[str, Any] = {"zeroline": zero_line, "exponentformat": "power"}
    if share:
        value_format = ".1%"
        top = 1.03 if share == "of_all" else max([0.05, *(1.1 * _top(curve.series) for curve in lines)])
        yaxis |= {"tickformat": ".0%", "range": [-0.03 * top, top]}
    traces = [trace for curve in lines if len(curve.series) for trace in (*_area(curve), *_line(curve, value_format))]
    return Figure(traces, _layout(unit, x_title, yaxis=yaxis))


def _top(series: Series) -> float:
    finite = series.values[np.isfinite(series.values)]
    return float(finite.max()) if len(finite) else 0.0


def _calm(series: Series) -> Series:
    """Smoothed where there is enough of it: in a stack, the spikes of one part look like those of all above it."""
    return series if len(series) < SMOOTH_FROM else smoothed(series)


def stacked(parts: Sequence[tuple[str, Series, str]], *, unit: str, shares: bool) -> Figure:
    """Parts of a whole over steps: (name, series, fill colour), from the bottom up. `shares`: of 1, as percentages."""
    return _stacked(tuple(parts), unit, shares)


@lru_cache(KEPT)
def _stacked(parts: tuple[tuple[str, Series, str], ...], unit: str, shares: bool) -> Figure:
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": plain(name),
            "x": series.steps.tolist(),
            "y": numbers(series.values),
            "stackgroup": "all",
            "line": {"width": 0.5, "color": colour},
            "fillcolor": colour,
            "hovertemplate": "%{y:.1%}" if shares else "%{y:.3s}",
        }
        for name, series, colour in ((name, _calm(series), colour) for name, series, colour in parts)
    ]
    yaxis = {"tickformat": ".0%", "range": [0, 1]} if shares else {"rangemode": "tozero"}
    return Figure(traces, _layout(unit, yaxis=yaxis))


@dataclass(frozen=True)
class Dot:
    """A sampled group on the map."""

    entropy: float
    rareness: float
    reward: float
    words: str  # on hover
    opens: list[int]  # step, and the group's place in it


def dots(shown: Sequence[Dot], others: Sequence[Dot], *, low: float, high: float) -> Figure:
    """Groups as points, entropy against rareness, coloured by their reward from `low` to `high`; `others` are faint."""
    colours = {
        "colorscale": [[0, WRONG], [0.5, NEUTRAL], [1, CORRECT]],
        "cmin": low,
        "cmax": max(high, low + 1e-6),
    }
    bar = {"thickness": 10, "outlinewidth": 0, "title": {"text": "mean reward"}}
    traces: list[Trace] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [dot.entropy for dot in groups],
            "y": [dot.rareness for dot in groups],
            "customdata": [dot.opens for dot in groups],
            "text": [plain(dot.words) for dot in groups],
            "hovertemplate": "%{text}<br>entropy %{x:.3f}, |A| %{y:.3f}<extra></extra>",
            "cliponaxis": False,  # a dot on the axis is whole
            "marker": {
                **colours,
                "color": [dot.reward for dot in groups],
                "size": size,
                "opacity": opacity,
                "line": {"width": 1, "color": faded(NEUTRAL, 0.8)},
                **({"colorbar": bar} if groups is shown else {}),
            },
        }
        for name, groups, size, opacity in (("other steps", others, 8, 0.55), ("this step", shown, 16, 1))
        if groups
    ]
    layout = _layout("rareness weight |A|", "entropy (nats a token)", hovermode="closest", showlegend=False)
    layout["height"] = 420
    layout["yaxis"] |= {"rangemode": "tozero"}
    return Figure(traces, layout)


@lru_cache(KEPT)
def heat_map(columns: HistogramColumns, *, colour: str, unit: str) -> Figure:
    """A histogram's history: steps to the right, values upward, stronger where more of a step's values lie."""
    steps, shares = columns.shares()
    edges = np.asarray(columns.edges)
    borders = [*(steps - columns.width / 2).tolist(), float(steps[-1] + columns.width / 2)]
    trace = {
        "type": "heatmap",
        "x": borders,
        "y": numbers(edges),
        "z": [numbers(row) for row in shares],
        "colorscale": [[0, faded(colour, 0)], [0.25, faded(colour, 0.45)], [1, faded(colour, 1)]],
        "zmin": 0,
        "colorbar": {"tickformat": ".0%", "thickness": 10, "outlinewidth": 0, "title": {"text": "share"}},
        "hovertemplate": "step %{x:.0f}<br>value %{y:.3g}<br>share %{z:.1%}<extra></extra>",
        "hoverongaps": False,
    }
    layout = _layout(unit, hovermode="closest", showlegend=False, yaxis={"range": _filled(edges, shares)})
    return Figure([trace], layout)


def _filled(edges: NDArray[np.float64], shares: NDArray[np.float64]) -> list[float]:
    """The range of values with something to see: bins that once held a hundredth of a column's values, and room."""
    filled = np.flatnonzero(np.nanmax(shares, axis=1, initial=0.0) >= 0.01)
    if not len(filled):
        return [float(edges[0]), float(edges[-1])]
    low, high = max(int(filled[0]) - 1, 0), min(int(filled[-1]) + 2, len(edges) - 1)
    return [float(edges[low]), float(edges[high])]


def intervals(metrics: Sequence[str], results: Sequence[Mapping[str, Any]]) -> Figure:
    """Evaluated models as dots with their interval, one row a metric. `results`: {model, metrics} of one split."""
    traces = []
    rows = len(metrics)
    for index, result in enumerate(results):
        values = result["metrics"]
        measured = [(row, name) for row, name in enumerate(metrics) if values.get(name) is not None]
        offset = (index - (len(results) - 1) / 2) * min(0.22, 0.7 / max(len(results), 1))
        centres = [float(values[name]) for _, name in measured]
        colour = MODELS[index % len(MODELS)]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(str(result["model"])),
                "x": centres,
                "y": [row + offset for row, _ in measured],
                "marker": {"color": colour, "size": 11, "symbol": "circle" if index % 2 else "diamond"},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [
                        max(0.0, float(values.get(f"{name}_high", centre)) - centre)
                        for (_, name), centre in zip(measured, centres, strict=True)
                    ],
                    "arrayminus": [
                        max(0.0, centre - float(values.get(f"{name}_low", centre)))
                        for (_, name), centre in zip(measured, centres, strict=True)
                    ],
                    "color": colour,
                    "thickness": 2,
                    "width": 5,
                },
                "hovertemplate": "%{x:.1%}",
            }
        )
    layout = _layout("", hovermode="closest")
    layout["height"] = 90 + 52 * rows + 14 * len(results)
    layout["xaxis"] = {"title": {"text": "share of prompts"}, "tickformat": ".0%", "range": [-0.02, 1.02]}
    layout["yaxis"] = {
        "tickvals": list(range(rows)),
        "ticktext": [plain(name.replace("_", " ").replace(" at k", "@k")) for name in metrics],
        "range": [rows - 0.5, -0.5],
        "automargin": True,
        "zeroline": False,
    }
    return Figure(traces, layout)
