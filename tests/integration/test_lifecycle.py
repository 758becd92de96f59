"""A job's life on a real database: allowed transitions, the holder of a job, and the repairs of the sweep."""

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from calibrl.schemas import JobStatus, Reason, WorkerStatus, job_spec_adapter
from jobs import lifecycle
from jobs.db import session_scope
from jobs.errors import Conflict, NotFound
from jobs.lifecycle import IllegalTransition, LeaseLost, Order, Outcome, Swept
from jobs.lifecycle.status import change
from jobs.repository import jobs, workers
from jobs.settings import get_settings
from tests.support.job_steps import (
    cancel,
    claim,
    expire,
    finish,
    heartbeat,
    history,
    machine,
    nothing_to_claim,
    run,
    run_count,
    status,
    submit,
    sweep,
    waiting_wakes,
)
from tests.support.waiting import LIMIT_SECONDS, eventually

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("database")]
S = JobStatus


def test_a_job_from_submission_to_success() -> None:
    id = submit()
    claimed = claim("worker-1")
    assert (claimed.job_id, claimed.attempt, claimed.kind, claimed.config["steps"]) == (id, 1, "train", 5)
    with session_scope() as session:
        lifecycle.start(session, claimed)
    assert heartbeat(claimed) is Order.CONTINUE
    finish(claimed, S.SUCCEEDED, result={"step": 5})
    with session_scope() as session:
        job = jobs.get(session, id)
        assert (job.status, job.result, job.lease_token, job.worker) == (S.SUCCEEDED, {"step": 5}, None, None)
        assert job.started_at is not None and job.finished_at is not None
        assert job.created_at <= job.started_at <= job.finished_at
    seen = [(event.type, event.status, event.actor) for event in history(id)]
    assert seen == [
        ("submitted", S.QUEUED, "user"),
        ("claimed", S.RUNNING, "worker-1"),
        ("started", None, "worker-1"),
        ("succeeded", S.SUCCEEDED, "worker-1"),
    ]


@pytest.mark.parametrize(
    ("before", "to"),
    [(S.RUNNING, S.CANCELLED), (S.RUNNING, S.WAITING)],
)
def test_transitions_not_in_the_table_are_refused(before: JobStatus, to: Any) -> None:
    id = submit()
    claimed = claim()
    with pytest.raises(IllegalTransition, match=f"is {before} and cannot become {to}"):
        finish(claimed, to)
    assert status(id) is before


def test_a_transition_that_is_not_in_the_table_is_refused() -> None:
    id = submit()
    for before, allowed in lifecycle.TRANSITIONS.items():
        for to in set(S) - allowed:
            if before is None:
                continue
            run("UPDATE jobs SET status = :status WHERE id = :id", status=before.value, id=id)
            with pytest.raises(IllegalTransition), session_scope() as session:
                change(session, jobs.lock(session, id), to, actor="user")
            assert status(id) is before


def test_priority_then_age_and_the_slots_of_each_kind() -> None:
    machine("cpu")
    low, first, second, high = submit(priority="low"), submit(), submit(), submit(priority="high")
    machine("gpu", cpu_slots=0, gpus=1)
    on_gpu = submit(resources={"gpus": 1}, priority="low")
    assert [claim("cpu").job_id for _ in range(4)] == [high, first, second, low]
    assert nothing_to_claim("cpu")
    claimed = claim("gpu")
    assert (claimed.job_id, claimed.gpus) == (on_gpu, (0,))


def test_no_two_workers_ever_take_the_same_job() -> None:
    for index in range(6):
        machine(f"w{index}", cpu_slots=4)
    ids = {submit() for _ in range(20)}
    taken: list[UUID] = []
    start = threading.Barrier(6)

    def work(name: str) -> None:
        start.wait(LIMIT_SECONDS)
        while True:
            with session_scope() as session:
                found = lifecycle.claim(session, worker=name)
            if found is None:
                return
            taken.append(found.job_id)

    threads = [threading.Thread(target=work, args=(f"w{index}",)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_SECONDS)
    assert len(taken) == len(ids)
    assert set(taken) == ids


def test_claims_take_turns() -> None:
    """Claims run one at a time, so that free slots, usage and order are the same for each decision."""
    submit()
    submit()
    machine("w")
    with session_scope() as session:
        assert lifecycle.claim(session, worker="w") is not None
        waiting = threading.Thread(target=claim)
        waiting.start()
        eventually(lambda: run_count("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == 1)
    waiting.join(LIMIT_SECONDS)
    assert run_count("SELECT count(*) FROM jobs WHERE status = 'running'") == 2


def test_a_locked_job_is_skipped() -> None:
    first, second = submit(), submit()
    machine("w")
    with session_scope() as session:
        jobs.lock(session, first)
        assert claim().job_id == second


def test_a_lost_lease_writes_nothing_more() -> None:
    id = submit()
    old = claim("old")
    expire(id)
    assert sweep().requeued == 1
    new = claim("new")
    assert (new.job_id, new.attempt) == (id, 2)
    actions: list[Callable[[Any], object]] = [
        lambda session: lifecycle.fence(session, old),
        lambda session: lifecycle.start(session, old),
        lambda session: lifecycle.finish(session, old, Outcome(S.SUCCEEDED)),
    ]
    for action in actions:
        with pytest.raises(LeaseLost), session_scope() as session:
            action(session)
    assert heartbeat(old) is Order.ABANDON
    assert heartbeat(new) is Order.CONTINUE
    assert status(id) is S.RUNNING


def test_a_finished_job_has_no_worker() -> None:
    submit()
    claimed = claim()
    finish(claimed, S.SUCCEEDED)
    assert heartbeat(claimed) is Order.ABANDON
    with pytest.raises(LeaseLost):
        finish(claimed, S.FAILED)


def test_the_fence_keeps_others_out_until_its_transaction_ends() -> None:
    id = submit()
    claimed = claim()
    expire(id)
    with session_scope() as session:
        lifecycle.fence(session, claimed)
        assert sweep().requeued == 0  # locked: left for the next sweep
    assert sweep().requeued == 1


def test_an_expired_lease_is_renewed_before_the_sweep() -> None:
    id = submit()
    claimed = claim()
    expire(id)
    assert heartbeat(claimed) is Order.CONTINUE
    assert sweep().requeued == 0


def test_lost_workers_requeue_a_job_until_it_has_had_enough() -> None:
    id = submit()
    for attempt in (1, 2, 3):
        assert claim().attempt == attempt
        expire(id)
        swept = sweep()
        assert (swept.requeued, swept.failed) == ((1, 0) if attempt < 3 else (0, 1))
    last = history(id)[-1]
    assert (last.status, last.reason, last.actor) == (S.FAILED, Reason.LOST_WORKER, "scheduler")


def test_a_requeued_job_resumes_and_does_not_count_as_lost() -> None:
    id = submit()
    for _ in range(get_settings().max_attempts + 1):
        finish(claim(), S.QUEUED, reason=Reason.WORKER_STOPPED)
    expected = (S.QUEUED, Reason.WORKER_STOPPED)
    with session_scope() as session:
        job = jobs.get(session, id)
        assert (job.status, job.reason) == expected
    claim()
    expire(id)
    assert sweep().requeued == 1


def test_a_stopping_workers_heartbeat_says_so() -> None:
    submit()
    claimed = claim("w")
    with session_scope() as session:
        workers.set_status(session, "w", WorkerStatus.STOPPING)
    assert heartbeat(claimed) is Order.STOP


def test_only_one_sweep_at_a_time() -> None:
    id = submit()
    claim()
    expire(id)
    with session_scope() as session:
        assert lifecycle.sweep(session).requeued == 1
        assert sweep() == Swept()
    assert status(id) is S.QUEUED


def test_cancel_before_a_job_runs_ends_it_at_once() -> None:
    first = submit()
    second = submit(first)
    assert cancel(second) is S.CANCELLED
    assert cancel(first) is S.CANCELLED
    assert nothing_to_claim()
    assert history(first)[-1].reason is Reason.USER


@pytest.mark.parametrize("ends", [S.SUCCEEDED, S.FAILED, S.QUEUED, S.CANCELLED])
def test_cancel_while_a_job_runs_wins_however_the_run_ends(ends: JobStatus) -> None:
    id = submit()
    claimed = claim()
    assert cancel(id) is S.CANCELLING
    with pytest.raises(Conflict, match="already being cancelled"):
        cancel(id)
    assert heartbeat(claimed) is Order.CANCEL
    finish(claimed, ends)
    assert status(id) is S.CANCELLED
    assert [event.type for event in history(id)][-2:] == ["cancelling", "cancelled"]


def test_cancel_of_a_job_whose_worker_is_gone_is_done_by_the_sweep() -> None:
    id = submit()
    claim()
    cancel(id)
    expire(id)
    assert sweep().cancelled == 1
    assert status(id) is S.CANCELLED


@pytest.mark.parametrize("end", [S.SUCCEEDED, S.FAILED])
def test_an_ended_job_cannot_be_cancelled(end: JobStatus) -> None:
    id = submit()
    finish(claim(), end)
    with pytest.raises(Conflict, match=end):
        cancel(id)
    with pytest.raises(NotFound):
        cancel(uuid4())


def test_wake_ups_follow_the_commit(redis_url: str) -> None:
    with pytest.raises(RuntimeError), session_scope() as session:
        spec = {
            "kind": "train",
            "name": "x",
            "model": {"builtin": "tiny-vlm"},
            "data": {"builtin": "digits"},
            "steps": 1,
        }
        lifecycle.submit(session, job_spec_adapter.validate_python(spec), actor="user")
        raise RuntimeError("no commit")
    machine("a", cpu_slots=1)
    machine("b", cpu_slots=0, gpus=1)
    assert waiting_wakes(redis_url, "a", "b") == {"a": 0, "b": 0}
    submit()
    assert waiting_wakes(redis_url, "a", "b") == {"a": 1, "b": 0}
    submit(resources={"gpus": 1})
    assert waiting_wakes(redis_url, "a", "b")["b"] == 1


def test_the_sweep_wakes_workers_with_room(redis_url: str) -> None:
    for _ in range(3):
        submit()
    assert sweep().woken == 0
    machine("one", cpu_slots=1)
    machine("silent")
    run("UPDATE workers SET heartbeat_at = now() - interval '1 hour' WHERE name = 'silent'")
    machine("two", cpu_slots=2)
    run("UPDATE workers SET stuck_slots = 1 WHERE name = 'two'")
    assert sweep().woken == 2
    assert waiting_wakes(redis_url, "one", "silent", "two") == {"one": 1, "silent": 0, "two": 1}
