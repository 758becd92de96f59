"""Visits: what a step reports of each of its groups, on a batch by hand and in a run."""

from pathlib import Path

import pytest

from calibrl_core.report import EventFile
from calibrl_core.run.visits import report_visits
from calibrl_core.train import train
from tests.support.step_batch import make_batch
from tests.support.training import config, of_type


def test_each_group_of_a_step_is_reported(tmp_path: Path) -> None:
    report = EventFile(tmp_path)
    report_visits(report, 7, make_batch())
    report.close()
    (found,) = of_type(tmp_path, "visits")
    assert (found["step"], found["ids"], found["experts"]) == (7, ["a", "b"], [False, False])
    assert (found["passed"], found["sizes"]) == ([1, 0], [3, 3])
    # (0.4 + 0.8 + 1.0 + 2.0 + 0.0 + 0.6) / 6 and (0.2 + 0.2 + 0.4 + 0.4) / 4 nats per token
    assert found["entropies"] == pytest.approx([0.8, 0.3])
    # Of tokens with a gap: (0.5 + 0.5 + 0 - 1.0 - 1.0) / 5 nats. The second prompt has no expert.
    assert found["gaps"] == [pytest.approx(-0.2), None]
    assert found["rareness"] == pytest.approx([0.48, 0.0])  # (0.72 + 0.31 + 0.41) / 3
    assert len({*found["prompts"]}) == 2


def test_a_run_reports_its_prompts_at_every_step(tmp_path: Path) -> None:
    report = EventFile(tmp_path)
    train(config(steps=2), report, lambda: False)
    report.close()
    found = of_type(tmp_path, "visits")
    assert [line["step"] for line in found] == [1, 2]
    assert all(len(line["prompts"]) == len(line["ids"]) > 0 for line in found)
