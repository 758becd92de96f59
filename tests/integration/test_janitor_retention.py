"""Retention on a real database and real folders: which records and files the janitor removes, and which it keeps."""

import threading

import pytest

from calibrl.schemas import JobStatus
from jobs import janitor
from jobs.db import session_scope
from jobs.janitor import Kind
from jobs.repository import images, jobs, logs
from jobs.settings import get_settings
from tests.support.job_steps import (
    cancel,
    claim,
    finish,
    history,
    pause,
    project,
    retry,
    run,
    run_count,
    status,
    submit,
)
from tests.support.leftovers import TABLES, clean, counts, ended_job, fill, find, folder
from tests.support.waiting import LIMIT_SECONDS, eventually

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("database")]
S = JobStatus


KEPT = ("jobs", "events", "attempts")


def test_a_job_past_its_retention_keeps_only_its_history() -> None:
    id = ended_job()
    assert counts(*TABLES) == dict.fromkeys(TABLES, 1)
    assert find() == []  # kept without limit
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


def test_a_retention_deletes_nothing_before_its_time() -> None:
    ended_job()
    project("default", retention_days=39)
    run("UPDATE projects SET retention_from = now() + interval '1 minute'")
    assert find() == []
    run("UPDATE projects SET retention_from = now()")
    assert len(find()) == 1


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
