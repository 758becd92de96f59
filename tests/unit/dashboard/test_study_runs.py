"""The row of a run in the report of a study."""

from typing import Any
from uuid import UUID

import pytest

from calibrl.schemas import JobStatus, StudyReport
from calibrl.schemas.study_reports import StudyRun
from dashboard.views.study_report import _run

JOB = UUID("00000000-0000-4000-8000-000000000001")


@pytest.mark.parametrize(("recorded", "links"), [(False, 3), (True, 0)])
def test_jobs_of_another_service_have_no_links(recorded: bool, links: int) -> None:
    run = StudyRun(
        arm="a",
        seed=0,
        digest="d",
        warm_up=JOB,
        training=JOB,
        training_status=JobStatus.SUCCEEDED,
        evaluation=JOB,
        evaluation_status=JobStatus.SUCCEEDED,
        recorded=recorded,
        accuracies={},
        slot_hours=1.0,
        curve=[],
    )
    tables: dict[str, Any] = {name: [] for name in ("splits", "arms", "comparisons", "metrics", "budgets", "notes")}
    facts: dict[str, Any] = {"name": "s", "primary": None, "baseline": None, "confidence": 0.95, "bootstrap_seed": 0}
    row = _run(StudyReport(runs=[run], **facts, **tables), run)
    assert ("(recorded)" in row) is recorded
    assert (row.count("href="), row.count(">00000000"), row.count("succeeded")) == (links, 3, 2)
