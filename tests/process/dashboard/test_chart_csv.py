"""CSV of a chart as the browser saves it, written by the chart's script in Node."""

import shutil
import subprocess
from base64 import b64encode
from pathlib import Path

import pytest

from dashboard.charts import figures
from dashboard.charts.figures import ChartFigure, Dot
from tests.support.charts import LABELS, result
from tests.support.waiting import LIMIT_SECONDS

NODE = shutil.which("node")


def as_csv(figure: ChartFigure) -> list[str]:
    """Return the CSV that the browser saves of a figure."""
    script = Path(figures.__file__).with_name("live_chart.js")
    program = (
        "globalThis.matchMedia = () => ({ matches: false });"
        "globalThis.DOMParser = class {"
        "  parseFromString(textContent) { return { documentElement: { textContent } }; } };"
        f"const {{ table }} = await import('data:text/javascript;base64,{b64encode(script.read_bytes()).decode()}');"
        f"console.log(table({figure.json}));"
    )
    run = [NODE or "node", "--input-type=module", "-e", program]
    return subprocess.run(run, capture_output=True, text=True, check=True, timeout=LIMIT_SECONDS).stdout.split()


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_the_csv_of_evaluations_names_metrics_and_intervals() -> None:
    found = [result("a", accuracy=0.5, accuracy_low=0.25, accuracy_high=0.75), result("b", accuracy=0.75)]
    figure = figures.intervals(["accuracy"], found, LABELS)
    figure.layout["xaxis"]["title"]["text"] = "share"
    assert as_csv(figure) == ["series,share,metric,low,high", "a,0.5,Accuracy,0.25,0.75", "b,0.75,Accuracy,0.75,0.75"]


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_the_csv_of_the_map_has_the_rewards() -> None:
    (row,) = as_csv(figures.dots([Dot(0.5, 0.25, 1.5, "p", [1, 1])], [], low=0, high=2))[-1:]
    assert row.endswith("0.5,0.25,1.5,p")
