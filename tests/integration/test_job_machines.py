"""Jobs on several machines in the queue: one lease for all, and what follows if one of them is lost or fails."""

from dataclasses import replace

import pytest

from calibrl.schemas import JobStatus, Reason, WaitReason, WorkerStatus, job_spec_adapter
from jobs import lifecycle
from jobs.db import session_scope
from jobs.errors import Invalid
from jobs.lifecycle import Claim, LeaseLost, Order, machines
from jobs.repository import job_machines, projects, workers
from tests.support.job_steps import (
    claimed,
    expire,
    expire_parts,
    finish,
    heartbeat,
    history,
    machine,
    run,
    run_count,
    status,
    submit,
    sweep,
    taken,
    waiting_wakes,
)

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("database")]
S = JobStatus


@pytest.fixture
def pair(database: str) -> tuple[Claim, Claim]:
    """The claims of a job that runs on a, its main machine, and on b, with both GPUs of each."""
    for name in "ab":
        machine(name, gpus=2)
    submit(resources={"machines": 2, "gpus": 2})
    return claimed("a"), taken("b")


def part_heartbeat(claim: Claim) -> Order:
    with session_scope() as session:
        return lifecycle.part_heartbeat(session, claim)


def end_part(claim: Claim, reason: Reason | None = None, message: str = "") -> None:
    with session_scope() as session:
        lifecycle.end_part(session, claim, (reason, message) if reason else None)


def jobs_of_machines() -> list[int]:
    with session_scope() as session:
        return [len(one.jobs) for one in machines.page(session, after="", limit=10)]


def clean_again() -> None:
    with session_scope() as session:
        for name in "ab":
            workers.mark_clean(session, name, {0, 1})


def test_one_claim_takes_the_gpus_of_all_machines(pair: tuple[Claim, Claim]) -> None:
    main, part = pair
    assert (main.rank, main.machines, main.gpus, main.processes, main.launched) == (0, 2, (0, 1), 2, True)
    assert replace(part, rank=0, seconds_run=main.seconds_run) == main
    assert part.rank == 1
    assert jobs_of_machines() == [1, 1]
    assert run_count("SELECT count(*) FROM gpus WHERE job_id IS NOT NULL") == 4
    (event,) = [event for event in history(main.job_id) if event.type == "claimed"]
    assert (event.actor, event.message) == ("a", "a: GPUs 0, 1; b: GPUs 0, 1")
    other = submit(resources={"gpus": 1})
    with session_scope() as session:
        (entry,) = lifecycle.queue_entries(session)
        assert lifecycle.take_part(session, worker="b") is None
    assert (entry.job_id, entry.reason) == (other, WaitReason.BUSY)


def test_only_the_main_machine_can_claim_and_the_others_are_woken(redis_url: str) -> None:
    for name in "ab":
        machine(name, cpu_slots=1)
    job_id = submit(resources={"machines": 2})
    assert waiting_wakes(redis_url, "a", "b") == {"a": 1, "b": 0}
    with session_scope() as session:
        assert lifecycle.claim(session, worker="b") is None
    assert claimed("a").job_id == job_id
    assert waiting_wakes(redis_url, "a", "b") == {"a": 1, "b": 1}
    sweep()
    assert waiting_wakes(redis_url, "a", "b") == {"a": 1, "b": 2}  # the first wake-up could be lost
    taken("b")
    sweep()
    assert waiting_wakes(redis_url, "a", "b") == {"a": 1, "b": 2}


def test_a_cpu_slot_of_each_machine_is_held() -> None:
    for name in "ab":
        machine(name, cpu_slots=1)
    submit(resources={"machines": 2})
    claimed("a")
    submit()
    with session_scope() as session:
        assert lifecycle.claim(session, worker="b") is None


def test_the_end_releases_all_machines(pair: tuple[Claim, Claim]) -> None:
    main, part = pair
    finish(main, S.SUCCEEDED)
    assert jobs_of_machines() == [0, 0]
    assert run_count("SELECT count(*) FROM gpus WHERE job_id IS NULL AND NOT clean") == 4
    assert part_heartbeat(part) is Order.ABANDON
    with pytest.raises(LeaseLost):
        end_part(part)


@pytest.mark.parametrize("lost", ["main", "part", "part that was not taken"])
def test_a_silent_machine_takes_the_job_from_all(lost: str, pair: tuple[Claim, Claim]) -> None:
    main, part = pair
    if lost == "main":
        expire(main.job_id)
    else:
        expire_parts()
    if lost == "part that was not taken":
        run("UPDATE job_machines SET state = 'called' WHERE rank > 0")
    silent = "a" if lost == "main" else "b"
    assert sweep().requeued == 1
    assert status(main.job_id) is S.QUEUED
    assert (heartbeat(main), part_heartbeat(part)) == (Order.ABANDON, Order.ABANDON)
    last = history(main.job_id)[-1]
    assert (last.reason, last.message) == (Reason.LOST_WORKER, f"no heartbeat of worker {silent} in time (attempt 1)")


def test_what_an_old_part_says_does_not_reach_the_next_attempt(pair: tuple[Claim, Claim]) -> None:
    _, old = pair
    expire_parts()
    sweep()
    clean_again()
    main = claimed("a")
    assert (main.attempt, part_heartbeat(old)) == (2, Order.ABANDON)
    for act in (lifecycle.part_ready, lifecycle.endpoint):
        with pytest.raises(LeaseLost), session_scope() as session:
            act(session, old)
    with pytest.raises(LeaseLost):
        end_part(old, Reason.CRASHED)
    assert heartbeat(main) is Order.CONTINUE
    assert (taken("b").attempt, part_heartbeat(old)) == (2, Order.ABANDON)


def test_a_heartbeat_keeps_the_part(pair: tuple[Claim, Claim]) -> None:
    main, part = pair
    expire_parts()
    assert part_heartbeat(part) is Order.CONTINUE
    assert sweep().requeued == 0
    assert heartbeat(main) is Order.CONTINUE


def test_the_machines_meet_once_all_are_ready(pair: tuple[Claim, Claim]) -> None:
    main, part = pair
    with session_scope() as session:
        assert not lifecycle.all_ready(session, main)
        lifecycle.part_ready(session, part)
    with session_scope() as session:
        assert lifecycle.all_ready(session, main)
        assert lifecycle.endpoint(session, part) is None
        lifecycle.meet_at(session, main, "10.0.0.1:1234")
    with session_scope() as session:
        assert lifecycle.endpoint(session, part) == "10.0.0.1:1234"


def test_a_failure_elsewhere_ends_the_trainer_of_the_main_machine(pair: tuple[Claim, Claim]) -> None:
    main, part = pair
    end_part(part, Reason.OUT_OF_MEMORY, "killed")
    assert heartbeat(main) is Order.END
    with session_scope() as session:
        assert lifecycle.end_all(session, main)
        assert lifecycle.first_failure(session, main) == ("b", Reason.OUT_OF_MEMORY, "killed")


def test_the_end_of_the_main_trainer_ends_the_others(pair: tuple[Claim, Claim]) -> None:
    main, part = pair
    with session_scope() as session:
        assert not lifecycle.end_all(session, main)
    assert part_heartbeat(part) is Order.END
    end_part(part)
    assert heartbeat(main) is Order.CONTINUE
    with session_scope() as session:
        assert lifecycle.end_all(session, main)
        assert lifecycle.first_failure(session, main) is None


@pytest.mark.parametrize("name", ["a", "b"])
def test_any_machine_that_stops_stops_the_job(name: str, pair: tuple[Claim, Claim]) -> None:
    with session_scope() as session:
        workers.set_status(session, name, WorkerStatus.STOPPING)
    assert heartbeat(pair[0]) is Order.STOP


def test_a_part_whose_inputs_are_gone_ends_with_the_reason(
    pair: tuple[Claim, Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs.lifecycle import parts
    from jobs.specs.trainer_config import SpecNoLongerValid

    def refuse(*_: object) -> None:
        raise SpecNoLongerValid(Reason.DEPENDENCY_FAILED, "no checkpoint")

    main, _ = pair
    run("UPDATE job_machines SET state = 'called' WHERE rank = 1")
    monkeypatch.setattr(parts, "described", refuse)
    with session_scope() as session:
        assert lifecycle.take_part(session, worker="b") is None
    assert heartbeat(main) is Order.END
    with session_scope() as session:
        assert lifecycle.first_failure(session, main) == ("b", Reason.DEPENDENCY_FAILED, "no checkpoint")


def test_all_machines_count_in_the_accounts(pair: tuple[Claim, Claim]) -> None:
    run("UPDATE attempts SET started_at = now() - interval '1 second', finished_at = now()")
    with session_scope() as session:
        (used,) = projects.usage(session, 1e9)
    assert float(used.recent) == pytest.approx(4, rel=0.01)
    assert (used.month, used.month_gpu) == (4.0, 4.0)


def test_more_machines_than_there_are_is_refused() -> None:
    machine("a", gpus=2)
    machine("b", gpus=1)
    for resources, field, text in (
        ({"machines": 2, "gpus": 2}, "resources.machines", "1 machine has 2 GPUs, not 2: lower machines or gpus"),
        ({"machines": 3, "gpus": 1}, "resources.machines", "2 machines have 1 GPU, not 3: lower machines or gpus"),
        ({"machines": 3}, "resources.machines", "2 machines have a CPU slot, not 3: lower machines or gpus"),
        ({"machines": 2, "gpus": 3}, "resources.gpus", "3 GPUs requested, but the largest machine has 2"),
    ):
        with pytest.raises(Invalid) as refused:
            submit(resources=resources)
        assert [(fault.field, fault.message) for fault in refused.value.errors] == [(field, text)]


def test_functions_of_users_need_a_machine_that_runs_them() -> None:
    machine("a")
    rewards = [{"type": "math"}, {"type": "python", "source": "def grade(sample, item): return 1.0"}]
    with pytest.raises(Invalid) as refused:
        submit(rewards=rewards)
    text = "no machine can run functions of users: ask the administrator to install bubblewrap on the workers"
    assert [(fault.field, fault.message) for fault in refused.value.errors] == [("rewards.1", text)]
    with session_scope() as session:
        workers.register(session, "b", host="h", labels={}, versions={"sandbox": "bubblewrap"}, cpu_slots=1)
    assert status(submit(rewards=rewards)) is S.QUEUED


def test_the_queue_says_which_machines_are_missing() -> None:
    for name in "ab":
        machine(name, gpus=2)
    job_id = submit(resources={"machines": 2, "gpus": 2})
    spec = {"kind": "train", "name": "n", "model": {"builtin": "tiny-vlm"}, "data": {"builtin": "digits"}, "steps": 1}
    checked = job_spec_adapter.validate_python(spec | {"resources": {"machines": 2, "gpus": 1}})
    with session_scope() as session:
        job = lifecycle.new_job(lifecycle.check(session, checked), actor="u")
        plan = lifecycle.queue_forecast(session, job, waits=False)
        assert (plan.slots, plan.explanation) == (2, "waiting for 2 machines with 1 free GPU each")
        (entry,) = lifecycle.queue_entries(session)
    assert (entry.machines, entry.gpus, entry.explanation) == (2, 2, "starts on a, b now")
    run("UPDATE workers SET status = 'draining' WHERE name = 'b'")
    with session_scope() as session:
        (entry,) = lifecycle.queue_entries(session)
    assert (entry.job_id, entry.reason) == (job_id, WaitReason.NO_MACHINE)
    assert entry.explanation == "fewer than 2 online machines have 2 GPUs each"


def test_the_job_names_its_machines(pair: tuple[Claim, Claim]) -> None:
    with session_scope() as session:
        (first, second) = job_machines.of_job(session, pair[0].job_id)
        assert (first.worker, second.worker) == ("a", "b")
        job = lifecycle.fence(session, pair[0])
        assert (job.worker, job.workers, job.machines) == ("a", ["a", "b"], 2)
