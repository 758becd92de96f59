"""A run's rows in the database: written once, read in pages, and within their limits."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, text
from sqlalchemy.orm import Session

from calibrl.schemas import JobFilter, JobStatus, WorkerStatus, job_spec_adapter
from jobs import lifecycle
from jobs.db import session_scope
from jobs.errors import Invalid, NotFound
from jobs.repository import (
    checkpoints,
    events,
    feed,
    histograms,
    images,
    job_machines,
    jobs,
    logs,
    metrics,
    projects,
    queue,
    samples,
    workers,
)
from tests.support.job_steps import card

pytestmark = pytest.mark.integration
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def session(database: str) -> Iterator[Session]:
    with session_scope() as session:
        yield session


def add_job(session: Session, name: str = "a job", **changes: Any) -> UUID:
    spec = {"kind": "train", "name": name, "model": {"builtin": "tiny-vlm"}, "data": {"builtin": "digits"}, "steps": 1}
    return lifecycle.submit(session, job_spec_adapter.validate_python({**spec, **changes}), actor="user").id


@pytest.fixture
def job(session: Session) -> UUID:
    return add_job(session)


def group(prompt: str = "p", rewards: tuple[Any, ...] = (1.0, 0.0), **more: Any) -> dict[str, Any]:
    completions = [{"text": "t", "reward": reward, "passed": reward == 1.0} for reward in rewards]
    return {"prompt_id": prompt, "completions": completions, **more}


def read_metrics(session: Session, job: UUID, **query: Any) -> list[tuple[int, dict[str, Any]]]:
    query = {"names": None, "after_step": -1, "limit": 100, **query}
    return [(step, values) for step, _, values in metrics.page(session, job, **query)]


def test_metrics_of_a_step_are_merged_and_never_doubled(session: Session, job: UUID) -> None:
    metrics.upsert(session, job, [(2, NOW, {"a": 1.5}), (1, NOW, {"a": 1}), (2, NOW, {"b": 2})])
    metrics.upsert(session, job, [(2, NOW, {"a": 3.0, "c": NAN})])
    metrics.upsert(session, job, [])
    assert read_metrics(session, job) == [(1, {"a": 1}), (2, {"a": 3.0, "b": 2, "c": "NaN"})]


def test_metrics_keep_non_finite_values_and_text_postgres_refuses(session: Session, job: UUID) -> None:
    metrics.upsert(session, job, [(1, NOW, {"up": INF, "down": -INF, "nan": NAN, "x\x00": 1})])
    assert read_metrics(session, job) == [(1, {"up": "Infinity", "down": "-Infinity", "nan": "NaN", "x\ufffd": 1})]


def test_metrics_are_read_by_name_and_in_pages(session: Session, job: UUID) -> None:
    rows = [
        (step, NOW, {"loss/total": step, **({"validation/accuracy": 0.5} if step % 3 == 0 else {})})
        for step in range(7)
    ]
    metrics.upsert(session, job, rows)
    metrics.upsert(session, add_job(session), [(1, NOW, {"loss/total": 9})])
    accuracy = read_metrics(session, job, names=["validation/accuracy", "none"], after_step=0)
    assert accuracy == [(3, {"validation/accuracy": 0.5}), (6, {"validation/accuracy": 0.5})]
    assert [step for step, _ in read_metrics(session, job, after_step=2, limit=2)] == [3, 4]
    assert read_metrics(session, job, names=["%' OR ?| $1"]) == []


def test_a_batch_of_many_steps_is_one_statement(session: Session, job: UUID) -> None:
    metrics.upsert(session, job, [(step, NOW, {f"m/{n}": n for n in range(40)}) for step in range(2000)])
    assert len(read_metrics(session, job, limit=5000)) == 2000


def test_histograms_replace_those_of_the_same_step(session: Session, job: UUID) -> None:
    histograms.upsert(session, job, [(1, "rareness", [0.0, 1.0], [1]), (1, "rareness", [0.0, 1.0], [2])])
    histograms.upsert(session, job, [(1, "rareness", [0.0, 1.0, 2.0], [3, 4]), (2, "rareness", [0.0, 1.0], [5])])
    histograms.upsert(session, job, [(1, "expert/gap", [0.0, 1.0], [6])])
    found = histograms.page(session, job, name="rareness", after_step=-1, limit=10)
    assert [(each.step, each.edges, each.counts) for each in found] == [
        (1, [0.0, 1.0, 2.0], [3, 4]),
        (2, [0.0, 1.0], [5]),
    ]


def test_samples_are_listed_without_contents_and_read_whole(session: Session, job: UUID) -> None:
    whole = group("p1", (1.0, 0.0, 0.5), answer="7\x00")
    assert samples.insert(session, job, 1, whole, 10_000)
    assert samples.insert(session, job, 2, group("p2", ("NaN",)), 10_000)
    assert samples.insert(session, job, 2, group("p3", ()), 10_000)
    first, second, third = samples.page(session, job, step=None, after=0, limit=10)
    assert (first.prompt_id, first.mean_reward, first.passed, first.size) == ("p1", 0.5, 1, 3)
    assert (second.mean_reward, third.mean_reward, third.size) == (None, None, 0)
    measured = [
        {"entropies": [1.0, 2.0], "advantage": -0.5},
        {"entropies": [3.0], "gaps": [None, 4.0], "advantage": 1.5},
    ]
    assert samples.insert(session, job, 3, {"prompt_id": "p4", "completions": measured}, 10_000)
    fourth = samples.page(session, job, step=3, after=0, limit=10)[0]
    assert (first.entropy, first.rareness, first.gap) == (None, None, None)
    assert (fourth.entropy, fourth.rareness, fourth.gap) == (2.0, 1.0, 4.0)
    assert [each.prompt_id for each in samples.page(session, job, step=2, after=second.id, limit=10)] == ["p3"]
    assert samples.get(session, job, first.id).group == {**whole, "answer": "7\ufffd"}
    with pytest.raises(NotFound):
        samples.get(session, add_job(session), first.id)


def test_samples_are_found_by_text_and_reward(session: Session, job: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"answer": "100 %", "expert": "Carry the One.", "prompt": "Add <b>these</b>"}
    assert samples.insert(session, job, 1, {**group("p1", (1.0, 0.0)), **texts}, 10_000)
    said = [{"text": "I say a_b\\c", "reward": 0.2}, {"text": "forty-two", "reward": "NaN"}]
    assert samples.insert(session, job, 2, {"prompt_id": "p2", "completions": said}, 10_000)
    assert samples.insert(session, job, 2, group("p3", (0.25,)), 10_000)

    def found(text: str | None = None, *, step: int | None = None, **bounds: float) -> list[str]:
        rows = samples.page(session, job, step=step, after=0, limit=10, text=text, **bounds)
        return [row.prompt_id for row in rows]

    assert found("carry the one") == found("<B>these") == found("0 %") == ["p1"]
    assert found("FORTY") == found("a_b\\") == found("P2") == ["p2"]
    assert found("aXb") == found("%x") == found("\x00") == found("forty", step=1) == []
    assert found(min_reward=0.25) == ["p1", "p3"]
    assert found(max_reward=0.25) == ["p3"]
    assert found("p", min_reward=0.3, max_reward=0.6) == ["p1"]
    monkeypatch.setattr(samples, "_says", lambda text: func.pg_sleep(5).is_(None))
    monkeypatch.setattr(samples, "MAX_SEARCH_SECONDS", 1)
    with pytest.raises(Invalid) as refused, session.begin_nested():
        found("x")
    assert [error.field for error in refused.value.errors] == ["q"]


def test_samples_past_the_limit_are_dropped_and_reported_once(session: Session, job: UUID) -> None:
    assert samples.insert(session, job, 1, group(), 400, image_bytes=200)
    assert not samples.insert(session, job, 2, group(), 400)
    assert not samples.insert(session, job, 3, group(), 400)
    assert len(samples.page(session, job, step=None, after=0, limit=10)) == 1
    warnings = [event for event in events.page(session, job, after=0, limit=10) if event.type == "warning"]
    assert ["step 2" in str(event.message) for event in warnings] == [True]
    assert samples.insert(session, add_job(session), 1, group(), 400)  # each job has its own limit


def test_images_about_to_be_added_count_too(session: Session, job: UUID) -> None:
    assert not samples.insert(session, job, 1, group(), 400, image_bytes=300)
    assert samples.insert(session, job, 2, group(), 400, image_bytes=100)


def test_an_image_is_stored_once_and_shown_by_its_jobs_only(session: Session, job: UUID) -> None:
    other, sha = add_job(session), "b" * 64
    images.put(session, job, sha, b"png")
    images.put(session, job, sha, b"png")
    assert images.get(session, job, sha) == b"png"
    assert (images.exists(session, job, sha), images.exists(session, other, sha)) == (True, False)
    with pytest.raises(NotFound):
        images.get(session, other, sha)
    images.put(session, other, sha, b"png")
    assert images.get(session, other, sha) == b"png"


def test_checkpoints_move_the_best_mark_and_drop_removed_files(session: Session, job: UUID) -> None:
    checkpoints.record(session, job, 1, "/c/1", True, {"validation/accuracy": 0.1}, [])
    checkpoints.record(session, job, 2, "/c/2", True, {"validation/accuracy": 0.2}, [])
    checkpoints.record(session, job, 3, "/c/3", False, {"validation/accuracy": NAN}, ["/c/1"])
    checkpoints.record(session, job, 3, "/c/3b", False, {}, [])
    found = [(each.step, each.path, each.best) for each in checkpoints.of_job(session, job)]
    assert found == [(2, "/c/2", True), (3, "/c/3b", False)]
    assert checkpoints.choose(session, add_job(session), "best") is None


def test_the_log_is_read_in_any_pieces(session: Session, job: UUID) -> None:
    for piece in (b"hello ", b"wor", b"ld\x00\xff"):
        logs.append(session, jobs.get(session, job), piece)
    whole = b"hello world\x00\xff"
    for after in range(len(whole) + 2):
        for limit in (1, 4, 100):
            assert logs.read(session, job, after=after, limit=limit) == whole[after : after + limit]
    jobs.get(session, job).log_length = 50
    logs.append(session, jobs.get(session, job), b"past a gap")
    assert logs.read(session, job, after=0, limit=100) == whole
    assert logs.read(session, job, after=50, limit=100) == b"past a gap"


def test_a_rewind_deletes_the_steps_a_resumed_run_repeats(session: Session, job: UUID) -> None:
    other = add_job(session)
    jobs.rewind(session, job, 0)
    assert feed.changes(session, job).rewound is None  # its first start: there is nothing to drop
    for each in (job, other):
        metrics.upsert(session, each, [(step, NOW, {"a": 1}) for step in (1, 2, 3)])
        histograms.upsert(session, each, [(step, "h", [0.0, 1.0], [1]) for step in (1, 2, 3)])
        for step in (1, 2, 3):
            samples.insert(session, each, step, group(), 10_000)
            checkpoints.record(session, each, step, f"/c/{step}", False, {}, [])
    jobs.rewind(session, job, 2)
    assert feed.changes(session, job).rewound == 2
    for each, steps in ((job, [1, 2]), (other, [1, 2, 3])):
        assert [step for step, _ in read_metrics(session, each)] == steps
        assert [row.step for row in histograms.page(session, each, name="h", after_step=-1, limit=9)] == steps
        assert [row.step for row in samples.page(session, each, step=None, after=0, limit=9)] == steps
        assert [row.step for row in checkpoints.of_job(session, each)] == steps


def test_the_shipped_position_and_the_last_step_are_stored(session: Session, job: UUID) -> None:
    for number in (1, 2):
        jobs.lease(session, jobs.get(session, job), uuid4(), "w", 30)
        session.flush()
        assert jobs.shipped_offsets(session, job, number) == (0, 0)
        jobs.set_shipped(session, job, number, 2**40, 7)
    assert jobs.shipped_offsets(session, job, 2) == (2**40, 7)
    jobs.set_progress(session, job, 3, 10)
    jobs.set_progress(session, job, 4, None)
    session.expire_all()
    found = jobs.get(session, job)
    assert (found.step, found.steps_total) == (4, 10)


def test_jobs_are_listed_from_new_to_old_in_pages(session: Session) -> None:
    ids = [add_job(session, name=f"job {index}") for index in range(7)]
    ids.reverse()
    after, seen = None, []
    while found := jobs.page(session, JobFilter(after=after, limit=3))[:3]:
        seen += [job.id for job in found]
        after = found[-1].id
        add_job(session, name="new while paging")
    assert seen == ids


def test_jobs_of_the_same_moment_are_neither_lost_nor_doubled(session: Session) -> None:
    ids = {add_job(session) for _ in range(5)}
    for id in ids:
        jobs.get(session, id).created_at = NOW
    session.flush()
    after, seen = None, []
    while found := jobs.page(session, JobFilter(after=after, limit=2))[:2]:
        seen += [job.id for job in found]
        after = found[-1].id
    assert len(seen) == 5
    assert set(seen) == ids


def test_jobs_are_filtered(session: Session) -> None:
    queued, cancelled = add_job(session), add_job(session)
    lifecycle.cancel(session, cancelled, actor="user")

    def ids(**filters: Any) -> list[UUID]:
        return [job.id for job in jobs.page(session, JobFilter(**filters))]

    assert ids(status=[JobStatus.QUEUED]) == [queued]
    assert ids(kind="evaluate") == []
    assert ids(project="default") == [cancelled, queued]
    with pytest.raises(Invalid):
        ids(after=uuid4())


def test_a_machine_from_start_to_end(session: Session, job: UUID) -> None:
    with pytest.raises(NotFound):
        workers.record_heartbeat(session, "w", [], [])
    workers.register(session, "w", host="h", labels={"a": "b"}, versions={}, cpu_slots=1)
    workers.record_heartbeat(session, "w", [card(0), card(1)], [])
    assert workers.get(session, "w").status is WorkerStatus.ONLINE
    workers.set_status(session, "w", WorkerStatus.DRAINING, drained=True)
    workers.register(session, "w", host="h", labels={}, versions={}, cpu_slots=2)  # started again: still drained
    assert workers.get(session, "w").status is WorkerStatus.DRAINING
    for status in (WorkerStatus.STOPPING, WorkerStatus.OFFLINE):  # as a worker that ends in order
        workers.set_status(session, "w", status)
    workers.register(session, "w", host="h", labels={}, versions={}, cpu_slots=2)
    assert workers.get(session, "w").status is WorkerStatus.DRAINING
    workers.set_status(session, "w", WorkerStatus.STOPPING, drained=False)
    workers.register(session, "w", host="h", labels={}, versions={}, cpu_slots=2)
    found = workers.get(session, "w")
    assert (found.status, found.cpu_slots, found.labels) == (WorkerStatus.ONLINE, 2, {})
    workers.register(session, "v", host="h", labels={}, versions={}, cpu_slots=1)
    assert [row[0].name for row in workers.page(session, limit=1, silent_seconds=30)] == ["v"]
    assert [row[0].name for row in workers.page(session, after="v", limit=9, silent_seconds=30)] == ["w"]


def test_a_gpu_is_given_out_only_when_its_memory_was_seen_to_be_free(session: Session, job: UUID) -> None:
    workers.register(session, "w", host="h", labels={}, versions={}, cpu_slots=1)
    workers.record_heartbeat(session, "w", [card(0), card(1)], [])
    assert workers.lock_free_gpus(session, "w") == []  # their memory is not yet read
    assert workers.unclean_gpus(session, "w") == {0, 1}
    workers.mark_clean(session, "w", {0, 1})
    assert workers.lock_free_gpus(session, "w") == [0, 1]
    workers.assign_gpus(session, "w", job, [0, 1])
    assert workers.lock_free_gpus(session, "w") == []
    workers.mark_clean(session, "w", {0, 1})  # of no effect on what is held
    session.expire_all()
    workers.release_gpus(session, job)
    assert workers.unclean_gpus(session, "w") == {0, 1}
    workers.mark_clean(session, "w", {1})
    assert workers.lock_free_gpus(session, "w") == [1]
    workers.assign_gpus(session, "w", job, [1])
    workers.record_heartbeat(session, "w", [], [])  # both fell off the bus: the one that a job holds stays known
    session.expire_all()
    assert [gpu.index for gpu in workers.get(session, "w").gpus] == [1]


def test_a_slot_with_a_job_its_worker_lost_is_stuck(session: Session, job: UUID) -> None:
    workers.register(session, "w", host="h", labels={}, versions={}, cpu_slots=3)
    found = jobs.lock(session, job)
    token = uuid4()
    jobs.lease(session, found, token, "w", 30)
    job_machines.add(session, found, token, ["w"], 30)
    found.status = JobStatus.RUNNING
    session.flush()
    workers.record_heartbeat(session, "w", [], [job, uuid4()])
    (machine,) = queue.machines(session, 30)
    assert (machine.cpu_slots, machine.free_cpu_slots) == (2, 1)


def test_usage_decays_but_the_monthly_budget_counts_it_in_full(session: Session, job: UUID) -> None:
    """An hour's run that ended a half-life ago counts half of what it would count now."""
    found = jobs.get(session, job)
    jobs.lease(session, found, uuid4(), "w", 30)
    session.flush()
    hour, half_life = 3600.0, 1e6
    started = text("UPDATE attempts SET started_at = now() - :ago * interval '1 s', finished_at = NULL")
    session.execute(started, {"ago": hour})
    (row,) = projects.usage(session, half_life)
    rate = math.log(2) / half_life
    assert row.recent == pytest.approx((1 - math.exp(-rate * hour)) / rate, rel=1e-6)
    assert row.recent == pytest.approx(hour, rel=2e-3)
    ended = text(
        "UPDATE attempts SET started_at = now() - :ago * interval '1 s', finished_at = now() - :end * interval '1 s'"
    )
    session.execute(ended, {"ago": hour + half_life, "end": half_life})
    (later,) = projects.usage(session, half_life)
    assert later.recent == pytest.approx(row.recent / 2, rel=1e-6)
    assert (later.project, later.user) == ("default", "user")
    session.execute(ended, {"ago": 40 * half_life + hour, "end": 40 * half_life})
    assert projects.usage(session, half_life) == []
