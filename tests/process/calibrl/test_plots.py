"""Charts of metrics in notebooks: matplotlib looks for fonts with another program."""

from datetime import UTC, datetime

import pytest

from calibrl.client.notebook import drawn
from calibrl.schemas import MetricRow

TS = datetime(2026, 1, 1, tzinfo=UTC)


def test_metrics_are_plotted_with_one_chart_each() -> None:
    pytest.importorskip("matplotlib")
    figure = drawn(
        [
            MetricRow(step=1, ts=TS, values={"reward/mean": 0.25}),
            MetricRow(step=2, ts=TS, values={"reward/mean": "NaN", "loss/total": 2.0}),
            MetricRow(step=3, ts=TS, values={"reward/mean": 0.75}),
        ]
    )
    assert [axes.get_title() for axes in figure.axes] == ["loss/total", "reward/mean"]
    (line,) = figure.axes[1].lines
    assert line.get_xdata().tolist() == [1, 2, 3]
    assert [str(value) for value in line.get_ydata()] == ["0.25", "nan", "0.75"]
