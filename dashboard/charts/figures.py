"""Plotly figures, as the plain JSON that Plotly draws. They are built too often to validate them.

A figure is cached: viewers of the same curves share it. `live_chart.js` adds the colours of the light or dark theme.
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

from dashboard.charts import marks
from dashboard.charts.look import PLAIN, Look
from dashboard.charts.marks import Mark
from dashboard.charts.series import HistogramColumns, Smoothing, StepSeries, fence, smoothed, spikes
from dashboard.palette import CORRECT, MODELS, NEUTRAL, WRONG, faded

Trace = dict[str, Any]

HEIGHT = 270  # pixels
MARKED = 60  # points from which a sparse curve has no mark at each point
KEPT = 256  # cached figures of each kind

Share = Literal["of_all", "small"]


@dataclass(frozen=True, eq=False)
class ChartFigure:
    """A figure for Plotly. Viewers share it, so it must not be changed."""

    data: list[Trace]
    layout: dict[str, Any]

    @cached_property
    def json(self) -> str:
        """The figure as JSON text."""
        return json.dumps({"data": self.data, "layout": self.layout}, allow_nan=False, separators=(",", ":"))


NOTHING = ChartFigure([], {})


@dataclass(frozen=True)
class Curve:
    """One line of a chart."""

    name: str
    series: StepSeries
    colour: str
    dash: str = "solid"
    sparse: bool = False  # measured at some steps only: a mark at every point
    exact: bool = False  # drawn as it was reported, not smoothed
    raw: bool = True  # a smoothed curve has the raw line behind it
    band: bool = False  # the area from `low` to `high` of the series is filled


def plain(text: str) -> str:
    """Return text that Plotly shows unchanged: it interprets some HTML tags."""
    return html.escape(text, quote=False)


def numbers(values: NDArray[np.float64]) -> list[float | None]:
    """Return values for JSON with five digits; a non-finite value is None, a gap."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values.tolist()]


def _layout(y_title: str, x_title: str = "step", **more: Any) -> dict[str, Any]:
    return {
        "height": HEIGHT,
        "margin": {"l": 52, "r": 12, "t": 8, "b": 40},
        "uirevision": "kept",  # keeps zoom and hidden lines after a redraw
        "hovermode": "x unified",
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "xanchor": "left"},
        "xaxis": {"title": {"text": plain(x_title), "standoff": 6}, "rangemode": "tozero", "automargin": True},
        "yaxis": {"title": {"text": plain(y_title), "standoff": 8}, "automargin": True, **more.pop("yaxis", {})},
        **more,
    }


def _area(curve: Curve, shown: StepSeries) -> list[Trace]:
    """The traces of a curve's band, if it has one."""
    if not curve.band:
        return []
    edge = {"type": "scatter", "mode": "lines", "legendgroup": plain(curve.name), "x": shown.steps.tolist()}
    edge |= {"hoverinfo": "skip", "showlegend": False, "line": {"width": 0, "color": curve.colour}}
    return [
        {**edge, "name": f"{plain(curve.name)} (min)", "y": numbers(shown.low)},
        {
            **edge,
            "name": f"{plain(curve.name)} (max)",
            "y": numbers(shown.high),
            "fill": "tonexty",
            "fillcolor": faded(curve.colour, 0.2),
        },
    ]


def _raw(curve: Curve, smoothing: Smoothing) -> list[Trace]:
    """The line of each value behind a smoothed curve, if it has one."""
    if curve.band or curve.sparse or curve.exact or not curve.raw or smoothing == "none":
        return []
    shown, name = spikes(curve.series), plain(curve.name)
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": f"{name} (each step)",
            "legendgroup": name,
            "x": shown.steps.tolist(),
            "y": numbers(shown.values),
            "line": {"color": faded(curve.colour, 0.3), "width": 1},
            "showlegend": False,
            "hoverinfo": "skip",
        }
    ]


def _line(curve: Curve, value_format: str, smoothing: Smoothing) -> list[Trace]:
    shown = curve.series if curve.sparse or curve.exact else smoothed(curve.series, smoothing)
    marked = len(shown) < (MARKED if curve.sparse else 3)
    line = {
        "type": "scatter",
        "mode": "lines+markers" if marked else "lines",
        "name": plain(curve.name),
        "legendgroup": plain(curve.name),
        "x": shown.steps.tolist(),
        "y": numbers(shown.values),
        "line": {"color": curve.colour, "width": 2.2, "dash": curve.dash},
        "marker": {"color": curve.colour, "size": 6, "symbol": "diamond" if curve.sparse else "circle"},
        "hovertemplate": f"%{{y:{value_format}}}",
    }
    return [*_area(curve, shown), *_raw(curve, smoothing), line]


def curves(
    lines: Sequence[Curve],
    *,
    unit: str,
    share: Share | None = None,
    zero_line: bool = False,
    value_format: str = ".3f",
    alerts: Sequence[Mark] = (),
    look: Look = PLAIN,
) -> ChartFigure:
    """Return lines over steps, with a mark at each alert.

    `share`: values from 0 to 1 as percentages, on an axis to 100 % (`of_all`) or to their maximum (`small`).
    """
    return _curves(tuple(lines), unit, look, share, zero_line, value_format, tuple(alerts))


@lru_cache(KEPT)
def _curves(
    lines: tuple[Curve, ...],
    unit: str,
    look: Look,
    share: Share | None,
    zero_line: bool,
    value_format: str,
    alerts: tuple[Mark, ...],
) -> ChartFigure:
    lines = tuple(curve for curve in lines if len(curve.series))
    yaxis: dict[str, Any] = {"zeroline": zero_line, "exponentformat": "power"}
    lowest, highest, ends = _reach(lines, whole=share is not None)
    if share:
        value_format = ".1%"
    if look.log:
        ends = None
        yaxis |= {"type": "log", **({"tickformat": ".3~%"} if share else {})}
    elif share:
        top = 1.03 if share == "of_all" else max(0.05, 1.1 * highest)
        yaxis |= {"tickformat": ".0%", "range": [-0.03 * top, top]}
    elif ends:
        margin = 0.05 * (highest - lowest or 1.0)
        yaxis["range"] = [lowest - margin if lowest < 0 else max(0.0, lowest - margin), highest + margin]
    elif lowest >= 0:
        yaxis["rangemode"] = "nonnegative"  # a constant has no negative seconds below it
    traces = [trace for curve in lines for trace in _line(curve, value_format, look.smoothing)]
    axes = f"{look.x_title}, log {look.log}"  # a zoom is of these axes
    layout = _layout(unit, look.x_title, yaxis=yaxis, showlegend=look.legend, uirevision=axes)
    return _marked(ChartFigure(traces, layout), lines, ends, alerts if traces else ())


def _reach(lines: Sequence[Curve], *, whole: bool) -> tuple[float, float, tuple[float, float] | None]:
    """Return the lowest and the highest value to show, and both again if a few huge values lie beyond. `whole`: show
    these too."""
    values = np.concatenate([[], *(bound for curve in lines for bound in (curve.series.low, curve.series.high))])
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 0.0, None
    ends = None if whole else fence(finite)
    return *(ends or (float(finite.min()), float(finite.max()))), ends


def _marked(
    figure: ChartFigure, lines: Sequence[Curve], ends: tuple[float, float] | None, alerts: Sequence[Mark] = ()
) -> ChartFigure:
    """Return the figure with marks at the alerts, and at the values that its lines cannot show. `ends`: of the axis, if
    it leaves some out."""
    lost = [mark for curve in lines for mark in marks.not_finite(plain(curve.name), curve.series)]
    beyond = [mark for curve in lines if ends for mark in marks.outside(plain(curve.name), curve.series, *ends)]
    added = marks.traces([(marks.NOT_FINITE, lost), (marks.OUTSIDE, beyond), (marks.ALERT, alerts)])
    layout = figure.layout | {"yaxis2": marks.AXIS, "shapes": marks.upright(alerts)} if added else figure.layout
    return ChartFigure([*figure.data, *added], layout)


def stacked(
    parts: Sequence[tuple[str, StepSeries, str]], *, unit: str, shares: bool, x_title: str = "step"
) -> ChartFigure:
    """Return parts of a whole over steps: (name, series, fill colour), from the bottom up.

    `shares`: parts of 1, as percentages.
    """
    return _stacked(tuple(parts), unit, shares, x_title)


@lru_cache(KEPT)
def _stacked(parts: tuple[tuple[str, StepSeries, str], ...], unit: str, shares: bool, x_title: str) -> ChartFigure:
    lines = [Curve(name, series, colour) for name, series, colour in parts if len(series)]
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": plain(curve.name),
            "x": curve.series.steps.tolist(),
            "y": numbers(smoothed(curve.series).values),  # spikes of one part would look like spikes of all above it
            "stackgroup": "all",
            "line": {"width": 0.5, "color": curve.colour},
            "fillcolor": curve.colour,
            "hovertemplate": "%{y:.1%}" if shares else "%{y:.3s}",
        }
        for curve in lines
    ]
    yaxis = {"tickformat": ".0%", "range": [0, 1]} if shares else {"rangemode": "tozero"}
    return _marked(ChartFigure(traces, _layout(unit, x_title, yaxis=yaxis)), lines, None)


@dataclass(frozen=True)
class Dot:
    """A sampled group on the map."""

    entropy: float
    rareness: float
    reward: float
    text: str  # on hover
    opens: list[int]  # step, and number of the group in the step


def dots(shown: Sequence[Dot], others: Sequence[Dot], *, low: float, high: float) -> ChartFigure:
    """Return groups as points: entropy against mean |A|, coloured by reward from `low` to `high`; `others`: faint."""
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
            "text": [plain(dot.text) for dot in groups],
            "hovertemplate": "%{text}<br>entropy %{x:.3f}, |A| %{y:.3f}<extra></extra>",
            "cliponaxis": False,  # shows the whole dot on an axis
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
    layout = _layout("mean |A| (learning signal)", "entropy (nats/token)", hovermode="closest", showlegend=False)
    layout["height"] = 420
    layout["yaxis"] |= {"rangemode": "tozero"}
    return ChartFigure(traces, layout)


@lru_cache(KEPT)
def heat_map(columns: HistogramColumns, *, colour: str, unit: str) -> ChartFigure:
    """Return a histogram over steps (x) and values (y); the stronger the colour, the larger the share of the step."""
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
    return ChartFigure([trace], layout)


def _filled(edges: NDArray[np.float64], shares: NDArray[np.float64]) -> list[float]:
    """The range of bins that held at least 1 % of a column, with a margin of one bin."""
    filled = np.flatnonzero(np.nanmax(shares, axis=1, initial=0.0) >= 0.01)
    if not len(filled):
        return [float(edges[0]), float(edges[-1])]
    low, high = max(int(filled[0]) - 1, 0), min(int(filled[-1]) + 2, len(edges) - 1)
    return [float(edges[low]), float(edges[high])]


def distribution(edges: Sequence[float], counts: Sequence[int], colour: str, what: str) -> ChartFigure:
    """Return a histogram as bars. edges: nats, one more than counts. what: the things that are counted."""
    filled = [place for place, count in enumerate(counts) if count]
    if not filled:
        return NOTHING
    low, high = max(filled[0] - 1, 0), min(filled[-1] + 2, len(counts))
    trace = {
        "type": "bar",
        "x": [(edges[place] + edges[place + 1]) / 2 for place in range(low, high)],
        "y": [*counts[low:high]],
        "width": [edges[place + 1] - edges[place] for place in range(low, high)],
        "marker": {"color": colour},
        "hovertemplate": f"%{{x:.2f}} nats<br>%{{y:,}} {plain(what)}<extra></extra>",
    }
    layout = _layout(what, "nats", hovermode="closest", showlegend=False)
    layout["xaxis"] |= {"range": [edges[low], edges[high]]}
    return ChartFigure([trace], layout)


def intervals(metrics: Sequence[str], results: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> ChartFigure:
    """Return evaluated models as dots with their intervals, one row per metric.

    `results`: {model, metrics} of one split. `labels`: of the metrics.
    """
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
    layout["xaxis"] = {"title": {"text": "accuracy"}, "tickformat": ".0%", "range": [-0.02, 1.02]}
    layout["yaxis"] = {
        "tickvals": list(range(rows)),
        "ticktext": [plain(labels[name]) for name in metrics],
        "range": [rows - 0.5, -0.5],
        "automargin": True,
        "zeroline": False,
    }
    return ChartFigure(traces, layout)
