"""The queue on a real database: pausing, retries, several GPUs, limits of projects, preemption, and reasons."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from calibrl.schemas import (
    JobChanges,
    JobStatus,
    QueueEntry,
    Reason,
    WaitReason,
    WorkerStatus,
)
from jobs import lifecycle
from jobs.db import session_scope
from jobs.errors import Conflict, Invalid, QuotaExceeded
from jobs.lifecycle import Order, Outcome, machines
from jobs.models import Job
from jobs.repository import jobs, workers
from jobs.scheduling import accounting
from jobs.settings import get_settings
from tests.support.job_steps import (
    cancel,
    card,
    checkpoint,
    claim,
    expire,
    finish,
    heartbeat,
    history,
    machine,
    nothing_to_claim,
    pause,
    project,
    resume,
    retry,
    run,
    run_count,
    status,
    submit,
    sweep,
)
from tests.support.waiting import LIMIT_SECONDS, eventually

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("database")]
S = JobStatus


def entry(job_id: UUID) -> QueueEntry:
    with session_scope() as session:
        return next(one for one in lifecycle.queue_entries(session) if one.job_id == job_id)


def gpu_job(gpus: int, **changes: Any) -> UUID:
    return submit(resources={"gpus": gpus}, **changes)


def read(job_id: UUID) -> Job:
    with session_scope() as session:
        return jobs.get(session, job_id)


def test_pause_before_a_job_runs_holds_it_at_once() -> None:
    first = submit()
    second = submit(first)
    assert (pause(first), pause(second)) == (S.PAUSED, S.PAUSED)
    assert nothing_to_claim()
    assert entry(first).reason is WaitReason.PAUSED
    assert (resume(first), resume(second)) == (S.QUEUED, S.WAITING)
    finish(claim(), S.SUCCEEDED)
    assert status(second) is S.QUEUED


def test_a_running_job_is_paused_at_a_checkpoint_and_resumes_from_it() -> None:
    id = submit()
    claimed = claim()
    assert pause(id) is S.PAUSING
    assert heartbeat(claimed) is Order.PAUSE
    path = checkpoint(id, 3)
    finish(claimed, S.PAUSED, reason=Reason.USER)
    assert (status(id), read(id).lease_token, nothing_to_claim()) == (S.PAUSED, None, True)
    assert resume(id) is S.QUEUED
    again = claim()
    assert (again.attempt, [(one.step, one.path) for one in again.checkpoints]) == (2, [(3, path)])
    types = ["submitted", "claimed", "pausing", "paused", "resumed", "claimed"]
    assert [event.type for event in history(id)] == types


@pytest.mark.parametrize(("ends", "to"), [(S.QUEUED, S.PAUSED), (S.SUCCEEDED, S.SUCCEEDED), (S.FAILED, S.FAILED)])
def test_a_pausing_run_can_still_end_otherwise(ends: JobStatus, to: JobStatus) -> None:
    id = submit()
    claimed = claim()
    pause(id)
    finish(claimed, ends)
    assert status(id) is to


def test_a_pausing_job_can_be_cancelled_but_a_cancelling_one_not_paused() -> None:
    id = submit()
    claimed = claim()
    pause(id)
    assert cancel(id) is S.CANCELLING
    with pytest.raises(Conflict, match="already cancelling"):
        pause(id)
    assert heartbeat(claimed) is Order.CANCEL
    finish(claimed, S.PAUSED)
    assert status(id) is S.CANCELLED


def test_a_worker_lost_while_pausing_leaves_the_job_paused() -> None:
    id = submit()
    claim()
    pause(id)
    expire(id)
    assert sweep().paused == 1
    assert (status(id), read(id).reason) == (S.PAUSED, Reason.LOST_WORKER)


def test_pause_resume_and_retry_are_refused_where_they_make_no_sense() -> None:
    id = submit()
    with pytest.raises(Conflict, match="is queued, not paused"):
        resume(id)
    with pytest.raises(Conflict, match="is queued: only a failed or cancelled"):
        retry(id)
    pause(id)
    with pytest.raises(Conflict, match="already paused"):
        pause(id)
    resume(id)
    claimed = claim()
    pause(id)
    with pytest.raises(Conflict, match="still being paused"):
        resume(id)
    finish(claimed, S.SUCCEEDED)
    for ask in (pause, resume):
        with pytest.raises(Conflict, match="already ended: it is succeeded"):
            ask(id)
    assert status(id) is S.SUCCEEDED


def test_a_paused_job_fails_with_its_dependency() -> None:
    first = submit()
    second = submit(first)
    pause(second)
    cancel(first)
    assert (status(second), read(second).reason) == (S.FAILED, Reason.DEPENDENCY_FAILED)


def test_a_retry_forgives_lost_workers_and_keeps_the_checkpoints() -> None:
    id = submit(limits={"max_attempts": 1})
    claim()
    checkpoint(id, 2)
    expire(id)
    assert sweep().failed == 1
    dependent_free = read(id)
    assert dependent_free.finished_at is not None
    assert retry(id) is S.QUEUED
    assert read(id).finished_at is None
    assert [one.step for one in claim().checkpoints] == [2]
    expire(id)
    assert sweep().failed == 1  # its one attempt is gone again


def test_a_dependent_can_be_retried_only_after_its_dependency() -> None:
    first = submit()
    second = submit(first)
    cancel(first)
    assert status(second) is S.FAILED
    with pytest.raises(Conflict, match="retry that job first"):
        retry(second)
    assert (retry(first), retry(second)) == (S.QUEUED, S.WAITING)


def test_a_job_gets_all_its_gpus_of_one_machine_or_waits() -> None:
    machine("two", cpu_slots=0, gpus=2)
    machine("four", cpu_slots=0, gpus=4)
    small, large = gpu_job(1), gpu_job(4)
    with session_scope() as session:
        held = lifecycle.claim(session, worker="two")
        assert held is not None and (held.job_id, held.gpus) == (small, (0,))
    with session_scope() as session:
        held = lifecycle.claim(session, worker="four")
        assert held is not None and (held.job_id, held.gpus) == (large, (0, 1, 2, 3))
    late = gpu_job(2)
    assert entry(late).reason is WaitReason.BUSY
    assert read(late).status is S.QUEUED


def test_small_jobs_do_not_starve_a_large_one() -> None:
    machine("w", cpu_slots=0, gpus=2)
    first = gpu_job(1)
    claimed = claim()
    assert claimed.job_id == first
    large = gpu_job(2)
    small = gpu_job(1)
    assert nothing_to_claim()  # the free GPU is kept for the large one
    assert (entry(small).reason, entry(small).explanation) == (
        WaitReason.RESERVED,
        f"the free slots are reserved for job {large}, which is ahead in the queue",
    )
    finish(claimed, S.SUCCEEDED)
    with session_scope() as session:
        workers.mark_clean(session, "w", {0})
    assert claim().job_id == large


def test_a_released_gpu_waits_for_its_memory() -> None:
    machine("w", cpu_slots=0, gpus=1)
    gpu_job(1)
    claimed = claim()
    waiting = gpu_job(1)
    finish(claimed, S.SUCCEEDED)
    assert nothing_to_claim()
    with session_scope() as session:
        assert workers.unclean_gpus(session, "w") == {0}
        workers.mark_clean(session, "w", {0})
    assert claim().job_id == waiting


def test_only_machines_with_the_labels_are_used() -> None:
    machine("plain")
    picky = submit(resources={"labels": {"site": "b"}})
    assert nothing_to_claim("plain")
    assert entry(picky).reason is WaitReason.NO_MACHINE
    assert "labelled site=b" in entry(picky).explanation
    machine("b", labels={"site": "b"})
    assert claim("b").job_id == picky


def test_more_gpus_than_any_machine_has_are_refused() -> None:
    with pytest.raises(Invalid) as caught:
        gpu_job(1)
    assert caught.value.errors[0].message == "1 GPU requested, but no machine has a GPU: set gpus to 0"
    machine("w", gpus=2)
    with pytest.raises(Invalid) as caught:
        gpu_job(3)
    (error,) = caught.value.errors
    assert (error.field, error.message) == ("resources.gpus", "3 GPUs requested, but the largest machine has 2")


def test_actions_without_effect_on_a_job_are_refused() -> None:
    with pytest.raises(Invalid) as caught:
        submit(limits={"min_gpu_utilisation": 50})
    assert [error.field for error in caught.value.errors] == ["limits.min_gpu_utilisation"]


def test_a_project_may_have_only_so_many_jobs_waiting() -> None:
    project("small", max_queued=2)
    for _ in range(2):
        submit(project="small")
    with pytest.raises(QuotaExceeded, match="has reached its limit of 2 waiting jobs"):
        submit(project="small")
    claim()
    submit(project="small")  # one of them runs now


def test_a_project_may_hold_only_so_many_gpus() -> None:
    machine("w", cpu_slots=0, gpus=3)
    project("capped", max_gpus=1)
    gpu_job(1, project="capped")
    second = gpu_job(1, project="capped")
    claim()
    assert nothing_to_claim()
    assert entry(second).reason is WaitReason.PROJECT_LIMIT
    assert entry(second).explanation == "project capped has reached its limit of GPUs"


@pytest.mark.parametrize("budget", ["budget_slot_hours", "user_budget_slot_hours"])
def test_a_project_that_has_used_its_budget_waits_for_the_next_month(budget: str) -> None:
    project("spender", **{budget: 1})
    submit(project="spender")
    claimed = claim()
    run("UPDATE attempts SET started_at = date_trunc('month', now()) - interval '1 hour'")
    run("UPDATE attempts SET started_at = now() - interval '61 minutes'")
    waiting = submit(project="spender")
    finish(claimed, S.SUCCEEDED)
    assert nothing_to_claim()
    assert entry(waiting).reason is WaitReason.BUDGET
    with session_scope() as session:
        (used,) = accounting.month(session)
    assert (used.project, used.user, used.gpu_hours) == ("spender", "user", 0)
    assert used.slot_hours == pytest.approx(61 / 60, rel=1e-2)


def test_projects_take_turns_by_their_usage() -> None:
    project("a")
    project("b")
    machine("w", cpu_slots=1)
    first = [submit(project="a") for _ in range(3)]
    second = [submit(project="b") for _ in range(2)]
    order = []
    for _ in range(4):
        claimed = claim()
        order.append(claimed.job_id)
        minutes = 10 if claimed.job_id in first else 11
        run("UPDATE attempts SET started_at = now() - :m * interval '1 minute' WHERE finished_at IS NULL", m=minutes)
        finish(claimed, S.SUCCEEDED)
    assert order == [first[0], second[0], first[1], second[1]]


def test_a_lower_class_is_preempted_if_the_service_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    machine("w", cpu_slots=1)
    low = submit(priority="low")
    claimed = claim()
    high = submit(priority="high")
    assert sweep().preempted == 0
    monkeypatch.setenv("CALIBRL_PREEMPTION", "true")
    get_settings.cache_clear()
    assert (sweep().preempted, sweep().preempted) == (1, 0)
    assert heartbeat(claimed) is Order.STOP
    finish(claimed, S.QUEUED, reason=Reason.WORKER_STOPPED)
    assert (status(low), read(low).reason) == (S.QUEUED, Reason.PREEMPTED)
    assert claim().job_id == high
    assert sweep().preempted == 0


def test_another_priority_moves_a_job_in_line() -> None:
    first, second = submit(), submit()
    with session_scope() as session:
        assert lifecycle.edit(session, second, JobChanges(priority="high"), actor="user").spec["priority"] == "high"
    assert (entry(second).position, entry(first).position) == (1, 2)
    assert claim().job_id == second


def test_the_queue_says_when_and_why() -> None:
    machine("w", cpu_slots=1)
    running = submit()
    claim()
    run("UPDATE attempts SET started_at = now() - interval '100 s' WHERE job_id = :id", id=running)
    run("UPDATE jobs SET step = 10, steps_total = 30 WHERE id = :id", id=running)
    queued = submit()
    waiting = submit(queued)
    found = entry(queued)
    assert (found.position, found.reason) == (1, WaitReason.BUSY)
    assert found.explanation == "waiting for a free CPU slot"
    assert found.estimated_start is not None
    assert (found.estimated_start - found.queued_at).total_seconds() == pytest.approx(200, abs=10)  # 20 steps of 10 s
    assert (entry(waiting).position, entry(waiting).reason) == (None, WaitReason.WAITING)


def test_a_drained_machine_takes_no_job_and_can_give_back_running_ones() -> None:
    machine("w")
    submit()
    claimed = claim()
    submit()
    with session_scope() as session:
        assert machines.drain(session, "w", now=False).status is WorkerStatus.DRAINING
    with session_scope() as session:
        assert lifecycle.claim(session, worker="w") is None
    assert heartbeat(claimed) is Order.CONTINUE
    with session_scope() as session, pytest.raises(Conflict, match="already draining"):
        machines.drain(session, "w", now=False)
    with session_scope() as session:
        assert machines.drain(session, "w", now=True).jobs == [claimed.job_id]
    assert heartbeat(claimed) is Order.STOP
    with session_scope() as session:
        assert machines.undrain(session, "w").status is WorkerStatus.ONLINE
    assert heartbeat(claimed) is Order.CONTINUE
    with session_scope() as session, pytest.raises(Conflict, match="not drained"):
        machines.undrain(session, "w")


def test_a_silent_machine_is_lost_and_gets_nothing() -> None:
    machine("w", gpus=1)
    id = submit()
    run("UPDATE workers SET heartbeat_at = now() - interval '1 hour'")
    with session_scope() as session:
        (found,) = machines.page(session, after="", limit=9)
        assert (found.status, len(found.gpus)) == (WorkerStatus.LOST, 1)
        assert lifecycle.claim(session, worker="w") is None
    with session_scope() as session:
        workers.record_heartbeat(session, "w", [card(0)], [])
    assert claim().job_id == id


def test_a_resume_waits_for_dependencies_and_does_not_block_their_end() -> None:
    first = submit()
    second = submit(first)
    claimed = claim()
    pause(second)
    with ThreadPoolExecutor(1) as pool:
        with session_scope() as session:
            lifecycle.fence(session, claimed)
            resumed = pool.submit(resume, second)
            eventually(lambda: run_count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
            lifecycle.finish(session, claimed, Outcome(S.SUCCEEDED))
        assert resumed.result(LIMIT_SECONDS) is S.QUEUED
