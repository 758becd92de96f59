"""The benchmark of the API: requests to MLflow, and computation of the figures."""

import json

from bench import report
from bench.api.mlflow_server import bodies
from bench.report import percentile


def test_points_go_in_calls_of_a_thousand_and_none_is_lost() -> None:
    points = [(step, name, float(step)) for step in range(1, 1051) for name in ("a", "b")]
    calls = [json.loads(body) for body in bodies("a run", points)]
    assert [len(call["metrics"]) for call in calls] == [1000, 1000, 100]
    assert {call["run_id"] for call in calls} == {"a run"}
    sent = [(metric["step"], metric["key"], metric["value"]) for call in calls for metric in call["metrics"]]
    assert sent == points


def test_a_percentile_is_the_least_value_that_such_a_share_reaches() -> None:
    hundred = [float(number) for number in range(100, 0, -1)]
    assert (percentile(hundred, 0.95), percentile(hundred, 0.5), percentile(hundred, 1.0)) == (95.0, 50.0, 100.0)
    assert percentile([3.0], 0.95) == 3.0
    assert percentile([1.0, 2.0, 3.0], 0.95) == 3.0


def test_a_figure_within_its_goal_meets_it() -> None:
    rows = [report.within("a wait", seconds, "s", 0.5) for seconds in (0.25, 0.5, 1.0)]
    assert [(row.ratio, row.met) for row in rows] == [(0.5, True), (1.0, True), (2.0, False)]
