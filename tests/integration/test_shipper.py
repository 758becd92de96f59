"""The shipper on a real database: every byte once, also after a fault."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from calibrl.schemas import job_spec_adapter
from calibrl_core.report import EVENT_FILE, IMAGE_FOLDER, EventFile
from jobs import lifecycle
from jobs.db import get_engine, session_scope
from jobs.lifecycle import Claim, KnownCheckpoint, LeaseLost
from jobs.repository import accuracies, checkpoints, curves, events, images, jobs, logs, metrics, samples
from tests.support import job_steps
from tests.support.databases import sql
from tests.support.fake_trainer.run import png
from tests.support.fake_trainer.train import group
from worker import attempt_folder
from worker.shipper import BATCH_LINES, LOG_FILE, Shipper

pytestmark = pytest.mark.integration


@pytest.fixture
def claim(database: str) -> Claim:
    spec = {
        "kind": "train",
        "name": "a test",
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits"},
        "algorithm": {"type": "grpo", "mini_batches": 1},
        "steps": 1000,
        "samples": {"max_megabytes": 0.02},
    }
    with session_scope() as session:
        lifecycle.submit(session, job_spec_adapter.validate_python(spec), actor="user")
    return job_steps.claim("tester")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def ship_all(shipper: Shipper) -> int:
    batches = 0
    while shipper.ship():
        batches += 1
    return batches


def rows(claim: Claim) -> dict[int, Any]:
    with session_scope() as session:
        found = metrics.page(session, claim.job_id, names=None, after_step=-1, limit=10_000)
    return {step: values for step, _, values in found}


def progress(claim: Claim) -> tuple[int, int | None]:
    with session_scope() as session:
        job = jobs.get(session, claim.job_id)
    return job.step, job.steps_total


def test_a_line_counts_once_it_is_whole(claim: Claim, run_dir: Path) -> None:
    line = json.dumps({"type": "metrics", "ts": 1.0, "step": 1, "values": {"a": 1}}).encode() + b"\n"
    shipper = Shipper(claim, run_dir, "tester")
    assert not shipper.ship()  # no file yet
    for end in (0, 10, len(line) - 1):
        (run_dir / EVENT_FILE).write_bytes(line[:end])
        shipper.ship()
        assert rows(claim) == {}
    (run_dir / EVENT_FILE).write_bytes(line + line[:5])
    assert ship_all(shipper) == 1
    assert rows(claim) == {1: {"a": 1}}


def test_a_backlog_is_sent_in_batches_and_a_second_shipper_continues_it(claim: Claim, run_dir: Path) -> None:
    report = EventFile(run_dir)
    for step in range(1, 2 * BATCH_LINES + 2):
        report.emit("metrics", step=step, values={"a": step})
    first = Shipper(claim, run_dir, "tester")
    assert first.ship()
    assert list(rows(claim)) == list(range(1, BATCH_LINES + 1))
    second = Shipper(claim, run_dir, "tester")
    assert ship_all(second) == 2
    assert rows(claim) == {step: {"a": step} for step in range(1, 2 * BATCH_LINES + 2)}
    assert not first.ship()
    assert progress(claim) == (2 * BATCH_LINES + 1, 1000)  # the steps of the spec


def test_a_resumed_run_starts_from_its_checkpoint(claim: Claim, run_dir: Path) -> None:
    """In one batch: rows written before the `start` go, those after it stay."""
    report = EventFile(run_dir)

    def attempt(begin: int, end: int, value: str) -> None:
        report.emit("start", step=begin, steps_total=9, versions={}, parameters=1)
        for step in range(begin + 1, end + 1):
            report.emit("metrics", step=step, values={value: step})
            report.emit("sample", step=step, group=group(value, report.save_image(png(step)), 2))

    attempt(0, 5, "old")
    report.emit("error", reason="crashed", message="gone")
    attempt(3, 6, "new")
    shipper = Shipper(claim, run_dir, "tester")
    assert ship_all(shipper) == 1
    assert [(step, *values) for step, values in rows(claim).items()] == [
        (step, "old" if step < 4 else "new") for step in range(1, 7)
    ]
    with session_scope() as session:
        found = samples.page(session, claim.job_id, step=None, after=0, limit=100)
    assert [(row.step, row.prompt_id) for row in found] == [(s, "old" if s < 4 else "new") for s in range(1, 7)]
    assert progress(claim) == (6, 9)
    assert shipper.error is None


def test_a_restarted_evaluation_replaces_its_earlier_results(claim: Claim, run_dir: Path) -> None:
    report = EventFile(run_dir)
    old, new = ["0" * 16, "1" * 16], ["2" * 16]
    for prompts, values in ((old, [0.25, 1.0]), (new, [0.5])):
        report.emit("start", step=0, steps_total=2, versions={})
        report.emit("accuracies", model_index=1, split="test", prompts=prompts, values=values)
    report.emit("accuracies", model_index=1, split="test", prompts=old, values=[1.0])  # one is missing
    ship_all(Shipper(claim, run_dir, "tester"))
    key = claim.job_id, 1, "test"
    with session_scope() as session:
        assert accuracies.sizes(session, [claim.job_id]) == {key: 1}
        found = accuracies.load(session, [key])[key]
    assert (found.prompts, found.values) == (new, [0.5])
    assert [event.message for event in job_steps.history(claim.job_id) if event.type == "warning"] == [
        "lines skipped in events.jsonl: 1; the first: accuracies: 2 prompts have 1 values"
    ]


def test_a_check_at_load_is_an_event_of_the_job(claim: Claim, run_dir: Path) -> None:
    report = EventFile(run_dir)
    report.emit("start", step=0, steps_total=9, versions={}, parameters=1)
    report.emit("checked", model_index=0, difference=3e-6, limit=1e-3, measured_at=0.0)
    ship_all(Shipper(claim, run_dir, "tester"))
    (event,) = (event for event in job_steps.history(claim.job_id) if event.type == "checked")
    assert event.message == (
        "model 1 was checked on 1970-01-01: sampler, update and transformers differ by at most 3e-06 nats (limit 0.001)"
    )


def test_a_validation_before_training_is_the_first_point(claim: Claim, run_dir: Path) -> None:
    """Also after a restart before the first step, which validates again."""
    report = EventFile(run_dir)
    for value in (0.25, 0.5):
        report.emit("start", step=0, steps_total=9, versions={}, parameters=1)
        report.emit("metrics", step=0, values={"validation/accuracy": value})
    shipper = Shipper(claim, run_dir, "tester")
    ship_all(shipper)
    assert rows(claim) == {0: {"validation/accuracy": 0.5}}
    assert progress(claim) == (0, 9)
    report.emit("metrics", step=1, values={"validation/accuracy": 0.75})
    ship_all(shipper)
    with session_scope() as session:
        found = curves.buckets(session, claim.job_id, ["validation/accuracy"], newest=1, width=1, first=0, last=1)
        assert [(row.first_step, row.last) for row in found] == [(0, 0.5), (1, 0.75)]


def test_nothing_is_written_without_the_lease(claim: Claim, run_dir: Path) -> None:
    report = EventFile(run_dir)
    report.emit("metrics", step=1, values={"a": 1})
    (run_dir / LOG_FILE).write_text("a line\n")
    with session_scope() as session:
        jobs.renew(jobs.lock(session, claim.job_id), -1)
    with session_scope() as session:
        lifecycle.sweep(session)
    with pytest.raises(LeaseLost):
        Shipper(claim, run_dir, "tester").ship()
    assert rows(claim) == {}
    with session_scope() as session:
        assert logs.read(session, claim.job_id, after=0, limit=100) == b""


def test_a_batch_is_written_whole_or_not_at_all(claim: Claim, run_dir: Path, database: str) -> None:
    report = EventFile(run_dir)
    report.emit("metrics", step=1, values={"a": 1})
    report.emit("sample", step=1, group=group("p", report.save_image(png(1)), 2))
    report.emit("checkpoint", step=1, path="/somewhere", best=True, metrics={}, removed=[])
    (run_dir / LOG_FILE).write_text("a line\n")
    shipper = Shipper(claim, run_dir, "tester")
    sql(database, "ALTER TABLE checkpoints RENAME TO hidden")
    with pytest.raises(Exception, match="checkpoints"):
        shipper.ship()
    assert rows(claim) == {}
    sql(database, "ALTER TABLE hidden RENAME TO checkpoints")
    assert ship_all(shipper) == 1
    with session_scope() as session:
        assert len(samples.page(session, claim.job_id, step=None, after=0, limit=100)) == 1
        assert len(checkpoints.of_job(session, claim.job_id)) == 1
        assert logs.read(session, claim.job_id, after=0, limit=100) == b"a line\n"


def test_a_recorded_checkpoint_stays_while_its_supervisor_is_suspended(claim: Claim, run_dir: Path) -> None:
    """The supervisor is suspended right after the commit. Its trainer goes on and removes the checkpoint."""
    saved = run_dir / "checkpoints" / "step-000001"
    saved.mkdir(parents=True)
    (saved / "model.safetensors").write_text("weights")
    EventFile(run_dir).emit("checkpoint", step=1, path=str(saved), best=True, metrics={}, removed=[])
    Shipper(claim, run_dir, "tester").ship()
    shutil.rmtree(saved)
    with session_scope() as session:
        recorded = [KnownCheckpoint(row.step, Path(row.path)) for row in checkpoints.of_job(session, claim.job_id)]
    attempt_folder.begin(run_dir.parent / "attempt-2", recorded)
    assert (run_dir.parent / "attempt-2/checkpoints/step-000001/model.safetensors").read_text() == "weights"


def test_a_commit_whose_answer_was_lost_is_not_repeated(
    claim: Claim, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = EventFile(run_dir)
    report.emit("sample", step=1, group=group("p", report.save_image(png(1)), 2))
    shipper = Shipper(claim, run_dir, "tester")
    with monkeypatch.context() as patch:
        dialect = type(get_engine().dialect)
        real = dialect.do_commit

        def commit_and_lose_the_answer(self: Any, connection: Any) -> None:
            real(self, connection)
            raise ConnectionResetError("the answer got lost")

        patch.setattr(dialect, "do_commit", commit_and_lose_the_answer)
        with pytest.raises(ConnectionResetError):
            shipper.ship()
    report.emit("metrics", step=1, values={"a": 1})
    ship_all(shipper)
    assert rows(claim) == {1: {"a": 1}}
    with session_scope() as session:
        assert len(samples.page(session, claim.job_id, step=None, after=0, limit=100)) == 1


def test_a_group_whose_images_do_not_fit_is_not_kept(claim: Claim, run_dir: Path) -> None:
    report = EventFile(run_dir)
    small, large = report.save_image(png(1)), "f" * 64
    (run_dir / IMAGE_FOLDER / f"{large}.png").write_bytes(bytes(20_000))
    for step, digest in enumerate([large, small, small], start=1):
        report.emit("sample", step=step, group=group("p", digest, 2))
    ship_all(Shipper(claim, run_dir, "tester"))
    with session_scope() as session:
        assert [row.step for row in samples.page(session, claim.job_id, step=None, after=0, limit=9)] == [2, 3]
        assert images.get(session, claim.job_id, small) == png(1)
        assert not images.exists(session, claim.job_id, large)


def test_samples_stay_under_the_jobs_limit_and_the_log_keeps_every_byte(claim: Claim, run_dir: Path) -> None:
    report = EventFile(run_dir)
    digest = report.save_image(png(1))
    for step in range(1, 41):
        report.emit("sample", step=step, group=group("p", digest, 4))
    report.emit("sample", step=41, group=group("../p", "../../etc/passwd", 2))
    text = "é\r" * 200_000
    (run_dir / LOG_FILE).write_bytes(text.encode())
    ship_all(Shipper(claim, run_dir, "tester"))
    with session_scope() as session:
        kept = samples.page(session, claim.job_id, step=None, after=0, limit=100)
        assert images.get(session, claim.job_id, digest) == png(1)
        notes = [e.message for e in events.page(session, claim.job_id, after=0, limit=100) if e.type == "warning"]
        log = logs.read(session, claim.job_id, after=0, limit=10_000_000)
    assert 1 < len(kept) < 20
    assert any("max_megabytes" in str(note) for note in notes)
    assert any("lines skipped in events.jsonl: 1" in str(note) for note in notes)
    assert log.decode() == text


def test_the_log_in_the_database_is_bounded(claim: Claim, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.shipper.MAX_LOG_BYTES", 1000)
    log = run_dir / LOG_FILE
    for size in (600, 1500, 1600):
        log.write_bytes(b"x" * size)
        ship_all(Shipper(claim, run_dir, "tester"))
    with session_scope() as session:
        assert logs.read(session, claim.job_id, after=0, limit=10_000) == b"x" * 1000
        notes = [event.message for event in events.page(session, claim.job_id, after=0, limit=10)]
    assert notes.count(f"the log has 0 MB; the rest is only in {log} on tester") == 1


def test_deleted_samples_make_room(claim: Claim, run_dir: Path) -> None:
    """The bytes of samples are counted, not summed up for each new one."""
    report = EventFile(run_dir)
    digest = report.save_image(png(1))
    shipper = Shipper(claim, run_dir, "tester")

    def counted() -> int:
        with session_scope() as session:
            return jobs.get(session, claim.job_id).sample_bytes

    report.emit("sample", step=1, group=group("p", digest, 4))
    ship_all(shipper)
    of_one = counted()
    report.emit("sample", step=2, group=group("p", digest, 4))
    ship_all(shipper)
    of_two = counted()
    assert 2 * (of_two - of_one) + len(png(1)) == of_two > 0
    report.emit("start", step=1, steps_total=9)
    ship_all(shipper)
    assert counted() == of_one


def test_an_image_with_another_hash_than_its_name_is_not_stored(claim: Claim, run_dir: Path) -> None:
    report = EventFile(run_dir)
    false = "a" * 64
    (run_dir / IMAGE_FOLDER).mkdir(exist_ok=True)
    (run_dir / IMAGE_FOLDER / f"{false}.png").write_bytes(png(1))
    report.emit("sample", step=1, group=group("p", false, 2))
    ship_all(Shipper(claim, run_dir, "tester"))
    with session_scope() as session:
        assert not images.exists(session, claim.job_id, false)
        messages = [event.message for event in events.page(session, claim.job_id, after=0, limit=10)]
    assert f"image skipped: the content of {false}.png has another hash" in messages
