"""Figures of two values of several runs: one point per run."""

from collections.abc import Mapping

from dashboard.charts.figures import NOTHING, ChartFigure, plain
from dashboard.charts.study_figures import Value, shown

Point = tuple[Value, Value]  # x, y


def scatter(points: Mapping[str, Point], x_title: str, y_title: str, colours: Mapping[str, str]) -> ChartFigure:
    """Return a point per run. Words are categories of an axis. `points` and `colours`: by name of the run."""
    if not points:
        return NOTHING
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": plain(name),
            "x": [plain(x) if isinstance(x, str) else x],
            "y": [plain(y) if isinstance(y, str) else y],
            "text": [plain(f"{name}: {shown(x)}, {shown(y)}")],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"color": colours[name], "size": 11, "opacity": 0.85},
        }
        for name, (x, y) in points.items()
    ]
    layout = {
        "height": 380,
        "margin": {"l": 60, "r": 12, "t": 8, "b": 40},
        "uirevision": "kept",
        "hovermode": "closest",
        "showlegend": False,
        "xaxis": _axis([x for x, _ in points.values()], x_title),
        "yaxis": _axis([y for _, y in points.values()], y_title),
    }
    return ChartFigure(traces, layout)


def _axis(values: list[Value], title: str) -> dict[str, object]:
    kind = "category" if any(isinstance(value, str) for value in values) else "linear"
    return {"type": kind, "title": {"text": plain(title), "standoff": 8}, "automargin": True}
