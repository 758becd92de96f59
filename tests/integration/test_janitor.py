"""The janitor on a real database and real folders: leftover files, expired leases, its command and its thread."""

import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from calibrl.schemas import JobStatus
from jobs import data_mark, janitor
from jobs.janitor import Finding, Kind
from jobs.settings import get_settings
from tests.support.job_steps import cancel, claim, expire, finish, status, submit
from tests.support.leftovers import (
    age,
    checkpoint,
    clean,
    find,
    folder,
    note,
    old_database,
)
from tests.support.waiting import LIMIT_SECONDS, eventually
from worker.janitor import Janitor, main

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("database")]
S = JobStatus


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


def test_folders_older_than_the_database_are_kept() -> None:
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
    age(get_settings().data_dir / "runs", days=1.1)
    young = checkpoint(id, 6, attempt=1)
    assert find() == []  # a worker holds it
    finish(second, S.FAILED)
    found = {one.path: (one.kind, one.bytes, one.why) for one in find()}
    assert found == {
        stale: (Kind.ORPHAN_CHECKPOINT, 300, "attempt-1 has ended; the checkpoint is not in the database"),
        half: (Kind.ORPHAN_CHECKPOINT, 20, "attempt-2 has ended; the checkpoint is incomplete"),
        copied: (Kind.ORPHAN_CHECKPOINT, 1, "attempt-2 has ended; the checkpoint is incomplete"),
    }
    assert len(clean()) == 3
    assert [path.exists() for path in (kept, stale, half, copied, young)] == [True, False, False, False, True]
    assert clean() == []


def test_a_supervisors_links_are_removed_with_their_files() -> None:
    id = submit()
    claimed = claim()
    note(id, 4, checkpoint(id, 4))
    links = folder(id) / "kept"
    for name in ("step-000004", "step-000003"):
        (links / name).mkdir(parents=True)
    finish(claimed, S.QUEUED)
    age(links, days=1.1)
    assert [found.path for found in clean()] == [links / "step-000003"]
    assert (links / "step-000004").exists()  # the next attempt goes on from there if the trainer has removed its own


def test_a_file_that_also_lies_elsewhere_frees_nothing() -> None:
    id = submit()
    claimed = claim()
    kept, stale = checkpoint(id, 4, size=300), checkpoint(id, 2, size=1)
    os.link(kept / "model.safetensors", stale / "the-same")
    note(id, 4, kept)
    finish(claimed, S.PAUSED)
    age(stale, days=1.1)
    (found,) = find()
    assert (found.path, found.bytes) == (stale, 1)


def test_a_newer_running_attempt_is_not_taken_for_an_ended_one() -> None:
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


def test_a_removal_that_was_cut_short_is_finished() -> None:
    left = get_settings().data_dir / "runs" / f".removed-{uuid4()}"
    left.mkdir(parents=True)
    (left / "file").write_bytes(bytes(77))
    (found,) = clean()
    assert (found.path, found.bytes, found.why) == (left, 77, "its removal was interrupted")
    assert not left.exists()


def test_a_folder_that_cannot_be_removed_does_not_block_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    old_database()
    first, second = sorted((uuid4(), uuid4()))
    for id in (first, second):
        folder(id)
    age(get_settings().data_dir / "runs", days=2)
    findings = find()
    get_settings().job_dir(first).rename(get_settings().data_dir / "aside")
    get_settings().job_dir(first).write_text("a file is no folder: the system refuses")
    assert [found.job_id for found in janitor.remove(findings)] == [second]


def test_the_command_lists_by_default_and_removes_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    id = submit()
    claimed = claim()
    stale = checkpoint(id, 2, size=2_000_000)
    age(stale, days=1.1)
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
    age(stale, days=1.1)
    finish(claimed, S.FAILED)
    thread = Janitor(get_settings())
    thread.start()
    eventually(lambda: not stale.exists())
    stale = checkpoint(id, 3)
    age(stale, days=1.1)
    eventually(lambda: not stale.exists())
    thread.stop()
    thread.join(LIMIT_SECONDS)
    assert not thread.is_alive()


def test_leftovers_go_to_the_trash_and_from_there_after_a_week() -> None:
    old_database()
    lost, id = uuid4(), submit()
    file = checkpoint(lost, 1) / "model.safetensors"
    claimed = claim()
    stale, half = checkpoint(id, 2), checkpoint(id, 5, name=".partial-step-000005")
    finish(claimed, S.FAILED)
    runs = get_settings().data_dir / "runs"
    age(runs, days=2)
    assert len(clean()) == 3
    (day,) = (runs / ".trash").iterdir()
    assert (day / file.relative_to(runs)).exists() and (day / stale.relative_to(runs)).exists()
    assert not half.exists() and not (day / half.relative_to(runs)).exists()
    assert clean() == []
    day.rename(day.with_name("2026-01-01"))
    (found,) = clean()
    assert (found.kind, found.why, list((runs / ".trash").iterdir())) == (Kind.TRASH, "in the trash for 7 days", [])


@pytest.mark.parametrize("change", [{"database": "of the backup"}, {"position": 2**62}])
def test_after_a_restore_nothing_is_removed_until_confirmed(
    change: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    old_database()
    checkpoint(uuid4(), 1)
    age(get_settings().data_dir / "runs", days=2)
    main([])  # marks the data folder
    assert "Nothing was removed" in capsys.readouterr().out
    mark = get_settings().data_dir / data_mark.FILE
    mark.write_text(json.dumps(json.loads(mark.read_text()) | change))
    with pytest.raises(SystemExit, match=r"On hold: the database is .* then run `python -m worker.janitor --confirm`"):
        main(["--apply"])
    assert len(find()) == 1
    main(["--confirm", "--apply"])
    assert find() == []


def test_a_restored_dump_is_another_database(database: str) -> None:
    """Also in the same server, under the same name."""
    assert data_mark.check(get_settings()) is None
    assert data_mark.check(get_settings()) is None
    with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("ALTER TABLE projects RENAME TO before")
        connection.execute("CREATE TABLE projects (LIKE before INCLUDING ALL)")
        try:
            assert "is not the one" in str(data_mark.check(get_settings()))
        finally:
            connection.execute("DROP TABLE projects")
            connection.execute("ALTER TABLE before RENAME TO projects")
