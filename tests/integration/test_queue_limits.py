"""Limits of projects on each job, and the plan that runs after a commit, on a real database."""

from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from calibrl.schemas import JobChanges, JobStatus
from jobs import lifecycle
from jobs.db import session_scope
from jobs.errors import Invalid
from jobs.lifecycle import dispatch
from jobs.lifecycle.dispatch import SchedulerInput
from jobs.models import Job
from jobs.scheduling.situation import Placement
from tests.support.job_steps import claim, machine, project, run, status, submit

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("database")]


def test_a_plan_runs_without_the_locks_of_the_submission(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others of the project, and workers that run its parents, would wait for the plan."""
    project("default", max_queued=10)
    parent = submit()
    free: list[int] = []

    def nothing_locked(session: Session, without: frozenset[UUID] = frozenset()) -> list[Placement]:
        with session_scope() as other:
            free.append(len(other.execute(text("SELECT 1 FROM jobs, projects FOR UPDATE NOWAIT")).all()))
        return []

    monkeypatch.setattr(dispatch, "startable", nothing_locked)
    submit(parent)
    assert free and all(free)


def test_a_commit_outlives_a_plan_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(session: Session, without: frozenset[UUID] = frozenset()) -> list[Placement]:
        raise OperationalError("SELECT 1", {}, Exception("away"))

    monkeypatch.setattr(dispatch, "startable", away)
    assert status(submit()) is JobStatus.QUEUED


def test_a_project_limits_priority_and_run_time() -> None:
    project("default", max_priority="normal", max_run_hours=2)
    for changes in ({"priority": "high"}, {"limits": {"timeout_seconds": 7201}}):
        with pytest.raises(Invalid) as caught:
            submit(**changes)
        assert [error.field for error in caught.value.errors] in (["priority"], ["limits.timeout_seconds"])
    short, any_time = submit(limits={"timeout_seconds": 60}), submit(priority="low")
    with pytest.raises(Invalid, match="not changed"), session_scope() as session:
        lifecycle.edit(session, any_time, JobChanges(priority="high"), actor="user")
    claims = {claimed.job_id: claimed for claimed in (claim(), claim())}
    assert claims[short].limits.timeout_seconds == 60
    assert claims[any_time].limits.timeout_seconds == 7200


@pytest.mark.parametrize(("gpus", "machines", "plans"), [(0, 1, 0), (2, 1, 0), (1, 2, 0), (1, 1, 1)])
def test_no_plan_is_made_for_jobs_that_fit_nowhere(
    monkeypatch: pytest.MonkeyPatch, gpus: int, machines: int, plans: int
) -> None:
    made: list[None] = []
    real = SchedulerInput.__init__

    def counted(self: SchedulerInput, session: Session, also: Job | None = None) -> None:
        made.append(None)
        real(self, session, also)

    monkeypatch.setattr(SchedulerInput, "__init__", counted)
    machine("a", cpu_slots=0, gpus=1)
    submit()
    machine("b", cpu_slots=0, gpus=2)
    if (gpus, machines) != (0, 1):
        submit(resources={"gpus": gpus, "machines": machines})
    run("UPDATE workers SET cpu_slots = 0")
    run("UPDATE gpus SET clean = (worker = 'a')")
    made.clear()
    with session_scope() as session:
        assert len(dispatch.startable(session)) == plans
    assert len(made) == plans
