"""The janitor on a real database and real folders: what goes, and what stays."""

import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from calibrl.schemas import DAY, JobStatus
from jobs import janitor
from jobs.db import session_scope
from jobs.janitor import Finding, Kind
from jobs.repository import checkpoints, histograms, images, jobs, logs, metrics, samples
from jobs.settings import get_settings
from tests.integration.test_queue import pause, project, retry
from tests.support.life import cancel, claim, expire, finish, history, run, run_count, status, submit
from tests.support.waiting import LIMIT_SECONDS, eventually
from worker.janitor import Janitor, main

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("database")]
S = JobStatus
TABLES = ("metrics", "histograms", "samples", "job_images", "log_chunks", "checkpoints")
KEPT = ("jobs", "events", "attempts")


def find() -> list[Finding]:
    return janitor.find(get_settings())


def clean() -> list[Finding]:
    return janitor.remove(find())


def counts(*tables: str) -> dict[str, int]:
    return {table: run_count(f"SELECT count(*) FROM {table}") for table in tables}


def folder(job_id: UUID, attempt: int = 1) -> Path:
    path = get_settings().run_dir(job_id, attempt)
    path.mkdir(parents=True, exist_ok=True)
    return path


def checkpoint(job_id: UUID, step: int, attempt: int = 1, *, size: int = 1000, name: str = "") -> Path:
    """A checkpoint's folder that no row names."""
    path = folder(job_id, attempt) / "checkpoints" / (name or f"step-{step:06d}")
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(bytes(size))
    return path


def note(job_id: UUID, step: int, path: Path) -> None:
    with session_scope() as session:
        checkpoints.record(session, job_id, step, str(path), False, {}, [])


def age(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    for each in [*path.rglob("*"), path]:
        os.utime(each, (then, then), follow_symlinks=False)


def old_database() -> None:
    run("UPDATE projects SET created_at = now() - interval '1 year'")


def ended_job(*, days: float = 40, **changes: object) -> UUID:
    """A job that succeeded, with something in every table and in its folder."""
    id = submit(**changes)  # type: ignore[arg-type]
    claimed = claim()
    assert claimed.job_id == id
    fill(id)
    finish(claimed, S.SUCCEEDED)
    run("UPDATE jobs SET finished_at = now() - :days * interval '1 day' WHERE id = :id", days=days, id=id)
    return id


def fill(id: UUID, image: bytes = b"png") -> None:
    with session_scope() as session:
        metrics.upsert(session, id, [(1, datetime.now(UTC), {"loss/total": 1.0})])
        histograms.upsert(session, id, [(1, "length", [0.0, 1.0], [3])])
        samples.insert(session, id, 1, {"prompt_id": "p", "images": ["a"], "completions": []}, 10_000)
        images.put(session, id, "a", image)
        logs.append(session, jobs.lock(session, id), b"a line\n")
    note(id, 1, checkpoint(id, 1))


def test_nothing_is_left_over_where_nothing_happened() -> None:
    assert find() == []
    submit()
    assert clean() == []


def test_an_expired_lease_is_given_to_the_sweep() -> None:
    id = submit()
    claim()
    assert find() == []
    expire(id)
    (found,) = find()
    assert (found.kind, found.job_id, found.path, found.bytes) == (Kind.LEASE, id, None, 0)
    assert found.why.startswith("lease of worker w expired ") and found.why.endswith(" s ago (attempt 1)")
    assert status(id) is S.RUNNING  # looking changes nothing
    assert janitor.remove([found]) == [found]
    assert (status(id), find()) == (S.QUEUED, [])


def test_a_folder_of_no_job_is_removed_after_a_day() -> None:
    old_database()
    lost, young, foreign = uuid4(), uuid4(), get_settings().data_dir / "runs" / "my-notes"
    checkpoint(lost, 1, size=5000)
    folder(young)
    foreign.mkdir()
    age(get_settings().data_dir / "runs", days=1.1)
    (folder(young) / "log.txt").write_text("x")  # its own folder is old, what is in it is not
    expected = Finding(Kind.ORPHAN_RUN, lost, get_settings().job_dir(lost), 5000, "its job is not in the database")
    assert find() == [expected]
    assert get_settings().job_dir(lost).exists()
    assert clean() == [expected]
    assert not get_settings().job_dir(lost).exists()
    assert foreign.exists() and folder(young).exists()
    assert clean() == []


@pytest.mark.parametrize("name", ["{}x", "{}-old", "{{{}}}", "urn:uuid:{}"])
def test_only_a_jobs_id_as_the_service_writes_it_names_a_run(name: str) -> None:
    old_database()
    path = get_settings().data_dir / "runs" / name.format(uuid4())
    path.mkdir(parents=True)
    age(path, days=9)
    assert find() == []


def test_a_database_younger_than_a_folder_says_nothing_about_it() -> None:
    folder(uuid4())
    age(get_settings().data_dir, days=9)
    assert find() == []


def test_links_are_neither_followed_nor_removed(tmp_path: Path) -> None:
    old_database()
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "attempt-1" / "checkpoints" / "step-000001").mkdir(parents=True)
    (elsewhere / "precious.bin").write_bytes(bytes(7000))
    runs = get_settings().data_dir / "runs"
    runs.mkdir()
    (runs / str(uuid4())).symlink_to(elsewhere)
    known = submit()
    cancel(known)
    get_settings().job_dir(known).mkdir()
    (get_settings().job_dir(known) / "attempt-1").symlink_to(elsewhere / "attempt-1")
    lost = folder(uuid4())
    (lost / "link").symlink_to(elsewhere)
    age(runs, days=2)
    (found,) = clean()
    assert found.path == lost.parent and not lost.parent.exists()
    assert found.bytes == 0  # of what a link leads to nothing is freed
    assert (elsewhere / "precious.bin").exists() and (elsewhere / "attempt-1" / "checkpoints" / "step-000001").exists()


def test_a_runs_folder_that_is_itself_a_link_is_left_alone(tmp_path: Path) -> None:
    old_database()
    (tmp_path / "disk" / str(uuid4())).mkdir(parents=True)
    age(tmp_path / "disk", days=2)
    (get_settings().data_dir / "runs").symlink_to(tmp_path / "disk")
    assert find() == []


def test_unreferenced_checkpoints_of_ended_attempts_are_removed() -> None:
    id = submit()
    finish(claim(), S.QUEUED)
    second = claim()
    kept = checkpoint(id, 4, attempt=2)
    note(id, 4, kept)
    stale = checkpoint(id, 2, attempt=1, size=300)
    half = checkpoint(id, 5, attempt=2, size=20, name=".partial-step-000005")
    copied = checkpoint(id, 4, attempt=2, size=1, name="step-000004.partial")
    assert find() == []  # a worker holds it
    finish(second, S.FAILED)
    found = {one.path: (one.kind, one.bytes, one.why) for one in find()}
    assert found == {
        stale: (Kind.ORPHAN_CHECKPOINT, 300, "attempt-1 has ended; the checkpoint is not in the database"),
        half: (Kind.ORPHAN_CHECKPOINT, 20, "attempt-2 has ended; the checkpoint is incomplete"),
        copied: (Kind.ORPHAN_CHECKPOINT, 1, "attempt-2 has ended; the checkpoint is incomplete"),
    }
    assert len(clean()) == 3
    assert [path.exists() for path in (kept, stale, half, copied)] == [True, False, False, False]
    assert clean() == []


def test_a_supervisors_links_are_removed_with_their_files() -> None:
    id = submit()
    claimed = claim()
    note(id, 4, checkpoint(id, 4))
    links = folder(id) / "kept"
    for name in ("step-000004", "step-000003"):
        (links / name).mkdir(parents=True)
    finish(claimed, S.QUEUED)
    assert [found.path for found in clean()] == [links / "step-000003"]
    assert (links / "step-000004").exists()  # the next attempt goes on from there if the trainer has removed its own


def test_a_file_that_also_lies_elsewhere_frees_nothing() -> None:
    id = submit()
    claimed = claim()
    kept, stale = checkpoint(id, 4, size=300), checkpoint(id, 2, size=1)
    os.link(kept / "model.safetensors", stale / "the-same")
    note(id, 4, kept)
    finish(claimed, S.PAUSED)
    (found,) = find()
    assert (found.path, found.bytes) == (stale, 1)


def test_an_attempt_that_has_begun_since_is_not_one_that_has_ended() -> None:
    id = submit()
    finish(claim(), S.QUEUED)
    begun = checkpoint(id, 4, attempt=2)  # linked before the janitor looks at folders, and after it asked the database
    assert find() == []
    assert begun.exists()


def test_checkpoints_are_recognised_after_the_data_folder_has_moved() -> None:
    id = submit()
    claimed = claim()
    checkpoint(id, 4)
    note(id, 4, Path("/an/old/place/runs") / str(id) / "attempt-1" / "checkpoints" / "step-000004")
    finish(claimed, S.SUCCEEDED)
    assert find() == []


def test_a_job_past_its_retention_keeps_only_its_history() -> None:
    id = ended_job()
    assert counts(*TABLES) == dict.fromkeys(TABLES, 1)
    assert find() == []  # kept for ever
    project("default", retention_days=41)
    assert find() == []
    project("default", retention_days=39)
    before = counts(*KEPT)
    (found,) = find()
    assert (found.kind, found.job_id, found.path) == (Kind.RETENTION, id, get_settings().job_dir(id))
    assert found.why == "ended 40 days ago; retention of project default: 39 days"
    # On disk 1000; in the database a log of 7, an image of 3, a sample's JSON of 52, and more for curves.
    assert 1000 + 7 + 3 + 52 < found.bytes < 1400
    assert counts(*TABLES) == dict.fromkeys(TABLES, 1)
    assert [one.job_id for one in clean()] == [id]
    assert counts(*TABLES, "images") == dict.fromkeys((*TABLES, "images"), 0)
    assert counts(*KEPT) == before | {"events": before["events"] + 1}
    assert history(id)[-1].type == "forgotten"
    assert list((get_settings().data_dir / "runs").iterdir()) == []
    assert clean() == []
    assert counts(*KEPT) == before | {"events": before["events"] + 1}


def test_an_image_that_another_job_shows_stays() -> None:
    project("kept")
    project("default", retention_days=1)
    old = ended_job()
    other = ended_job(project="kept")
    (found,) = clean()
    assert found.job_id == old
    with session_scope() as session:
        assert images.get(session, other, "a") == b"png"


def test_a_run_that_shows_an_image_while_the_janitor_forgets_it_keeps_it() -> None:
    """The second transaction waits for the first and sees its result."""
    project("default", retention_days=1)
    ended_job()
    other = submit()
    claim()
    cleaner = threading.Thread(target=clean)
    with session_scope() as session:
        images.put(session, other, "a", b"png")
        cleaner.start()
        eventually(lambda: run_count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
    cleaner.join(LIMIT_SECONDS)
    with session_scope() as session:
        assert images.get(session, other, "a") == b"png"
    assert counts("job_images") == {"job_images": 1}


def test_a_folder_alone_goes_too_and_rows_alone_as_well() -> None:
    """Machines need not share a disk: one has the folder, another may have forgotten the rows."""
    project("default", retention_days=1)
    id = ended_job()
    aside = get_settings().job_dir(id).rename(get_settings().data_dir / "elsewhere")
    (found,) = clean()
    assert found.path is None and counts("metrics") == {"metrics": 0}
    aside.rename(get_settings().job_dir(id))
    (found,) = clean()
    assert found.path == get_settings().job_dir(id) and not found.path.exists()
    assert [event.type for event in history(id)].count("forgotten") == 1


@pytest.mark.parametrize("holder", ["queued", "waiting", "paused", "running"])
def test_files_of_unfinished_jobs_are_kept(holder: str) -> None:
    project("default", retention_days=1)
    id = ended_job()
    dependent = submit(*([submit()] if holder == "waiting" else []), model={"from_job": str(id)})
    if holder == "paused":
        pause(dependent)
    if holder == "running":
        assert claim().job_id == dependent
    assert (status(dependent), find()) == (S(holder), [])
    if holder == "running":
        run("UPDATE jobs SET status = 'cancelled', lease_token = NULL WHERE id = :id", id=dependent)
    else:
        cancel(dependent)
    assert [found.job_id for found in find()] == [id]


def test_a_job_is_kept_if_a_spec_names_its_checkpoint_by_path() -> None:
    project("default", retention_days=1)
    id = ended_job()
    path = folder(id) / "checkpoints" / "step-000001"
    (path / "config.json").write_text("{}")
    user = submit()
    with session_scope() as session:  # a submission could not name it: the folder of runs is closed to paths
        job = jobs.get(session, user)
        job.spec = {**job.spec, "model": {"path": str(path)}}
    assert find() == []
    cancel(user)
    assert [found.job_id for found in find()] == [id]


def test_a_job_that_is_retried_before_its_turn_is_left_alone() -> None:
    project("default", retention_days=1)
    id = submit()
    claimed = claim()
    fill(id)
    finish(claimed, S.FAILED)
    run("UPDATE jobs SET finished_at = now() - interval '9 days'")
    findings = find()
    assert [found.job_id for found in findings] == [id]
    retry(id)
    assert janitor.remove(findings) == []
    assert counts(*TABLES) == dict.fromkeys(TABLES, 1)
    assert [one.step for one in claim().checkpoints] == [1]


def test_a_forgotten_job_can_be_run_again_and_its_log_read() -> None:
    project("default", retention_days=1)
    id = submit()
    claimed = claim()
    fill(id)
    finish(claimed, S.FAILED)
    run("UPDATE jobs SET finished_at = now() - interval '9 days'")
    assert len(clean()) == 1
    retry(id)
    assert claim().checkpoints == ()
    with session_scope() as session:
        logs.append(session, jobs.lock(session, id), b"again\n")
    with session_scope() as session:
        assert logs.read(session, id, after=0, limit=100) == b"again\n"


def test_a_removal_that_was_cut_short_is_finished() -> None:
    left = get_settings().data_dir / "runs" / f".removed-{uuid4()}"
    left.mkdir(parents=True)
    (left / "file").write_bytes(bytes(77))
    (found,) = clean()
    assert (found.path, found.bytes, found.why) == (left, 77, "its removal was interrupted")
    assert not left.exists()


def test_one_folder_that_can_not_be_removed_keeps_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    old_database()
    first, second = sorted((uuid4(), uuid4()))
    for id in (first, second):
        folder(id)
    age(get_settings().data_dir / "runs", days=2)
    findings = find()
    get_settings().job_dir(first).rename(get_settings().data_dir / "aside")
    get_settings().job_dir(first).write_text("a file is no folder: the system refuses")
    assert [found.job_id for found in janitor.remove(findings)] == [second]


def test_two_at_once_do_no_harm() -> None:
    project("default", retention_days=1)
    ids = {ended_job() for _ in range(5)}
    threads = [threading.Thread(target=clean) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_SECONDS)
    assert find() == []
    assert counts(*TABLES) == dict.fromkeys(TABLES, 0)
    assert all([event.type for event in history(id)].count("forgotten") == 1 for id in ids)


def test_the_command_lists_by_default_and_removes_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    id = submit()
    claimed = claim()
    stale = checkpoint(id, 2, size=2_000_000)
    finish(claimed, S.FAILED)
    main([])
    said = capsys.readouterr().out
    assert "2.0 MB" in said and "1 in all" in said and "Nothing was removed" in said
    assert stale.exists()
    main(["--apply"])
    assert "1 in all" in capsys.readouterr().out
    assert not stale.exists()
    main(["--apply"])
    assert "0 in all" in capsys.readouterr().out


def test_the_thread_does_its_rounds_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBRL_JANITOR_HOURS", "0.00001")
    get_settings.cache_clear()
    id = submit()
    claimed = claim()
    stale = checkpoint(id, 2)
    finish(claimed, S.FAILED)
    thread = Janitor(get_settings())
    thread.start()
    eventually(lambda: not stale.exists())
    stale = checkpoint(id, 3)
    eventually(lambda: not stale.exists())
    thread.stop()
    thread.join(LIMIT_SECONDS)
    assert not thread.is_alive()
