"""Visits: what a step reports of each of its groups, on a batch by hand and in a run."""

from pathlib import Path

import pytest

from calibrl_core.report import EventFile
from calibrl_core.run.visits import report_visits
from calibrl_core.train import train
from tests.support.training import config, of_type

from .test_diagnostics import ADVANTAGES, ENTROPIES, LENGTHS, LOGPROBS, PASSED, make_batch


def test_each_group_of_a_step_is_reported(tmp_path: Path) -> None:
    report, batch = EventFile(tmp_path), make_batch()
    report_visits(report, 7, batch)
    report.close()
    (found,) = of_type(tmp_path, "visits")
    assert (found["step"], found["ids"], found["experts"]) == (7, ["a", "b"], [False, False])
    assert found["passed"] == [sum(row) for row in PASSED]
    assert found["sizes"] == [3, 3]
    kept = [row[:length] for row, length in zip(ENTROPIES, LENGTHS, strict=True)]
    means = [sum(map(sum, rows)) / sum(map(len, rows)) for rows in (kept[:3], kept[3:])]
    assert found["entropies"] == pytest.approx(means, abs=1e-5)
    assert found["gaps"][1] is None  # no expert
    assert found["rareness"] == pytest.approx([sum(map(abs, row)) / 3 for row in ADVANTAGES], abs=1e-5)
    assert len({*found["prompts"]}) == 2


def test_the_gap_of_a_group_is_the_mean_over_its_tokens_with_one(tmp_path: Path) -> None:
    report = EventFile(tmp_path)
    report_visits(report, 1, make_batch())
    report.close()
    (found,) = of_type(tmp_path, "visits")
    expert = [-1.0, -2.0]  # two tokens: the third position has no gap
    gaps = [
        logprob - other
        for row, length in zip(LOGPROBS[:3], LENGTHS[:3], strict=True)
        for logprob, other in zip(row[: min(length, 2)], expert, strict=False)
    ]
    assert found["gaps"][0] == pytest.approx(sum(gaps) / len(gaps), abs=1e-5)


def test_a_run_reports_its_prompts_at_every_step(tmp_path: Path) -> None:
    report = EventFile(tmp_path)
    train(config(steps=2), report, lambda: False)
    report.close()
    found = of_type(tmp_path, "visits")
    assert [line["step"] for line in found] == [1, 2]
    assert all(len(line["prompts"]) == len(line["ids"]) > 0 for line in found)
