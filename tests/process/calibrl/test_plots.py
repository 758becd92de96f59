"""Charts of metrics in notebooks: matplotlib looks for fonts with another program."""

from datetime import UTC, datetime

import numpy as np
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
    points = np.asarray(line.get_xydata()).tolist()
    assert [[str(number) for number in point] for point in points] == [["1.0", "0.25"], ["2.0", "nan"], ["3.0", "0.75"]]
