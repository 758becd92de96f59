"""The table and the JSON file."""

import json
from pathlib import Path

from bench import report


def test_a_goal_is_met_from_its_bound_on() -> None:
    faster = [report.at_least("step", ours, 3.0, "s", times=1.5) for ours in (1.9, 2.0, 2.1)]
    smaller = [report.at_most("peak", ours, 4.0, "GB", share=0.25) for ours in (0.9, 1.0, 1.1)]
    assert [row.met for row in faster + smaller] == [True, True, False] * 2
    assert (faster[1].ratio, smaller[1].ratio) == (1.5, 0.25)


def test_the_file_is_a_list_of_seven_fields(tmp_path: Path) -> None:
    path = report.write("some", [report.no_goal("time", 2.0, 3.0, "s")], tmp_path / "results")
    assert path == tmp_path / "results" / "some.json"
    assert json.loads(path.read_text()) == [
        {"measure": "time", "ours": 2.0, "peer": 3.0, "ratio": 1.5, "unit": "s", "goal": None, "met": None}
    ]


def test_the_table_says_which_goals_were_missed() -> None:
    rows = [report.at_most("peak", 2.0, 4.0, "GB", share=0.25), report.no_goal("time", 2.0, 3.0, "s")]
    assert report.table(rows).splitlines() == [
        "| Measure | Ours | Peer | Unit | Ratio | Goal                | Met    |",
        "|---------|------|------|------|-------|---------------------|--------|",
        "| peak    | 2    | 4    | GB   | 0.50  | ours / peer <= 0.25 | **no** |",
        "| time    | 2    | 3    | s    | 1.50  |                     |        |",
    ]
