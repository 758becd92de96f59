"""Jobs that go on after the data folder was moved, or while its disk is away; the trainer is the fake one."""

import shutil
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select

from calibrl.schemas import JobStatus, Reason
from jobs import lifecycle, models
from jobs.db import session_scope
from jobs.files import artifacts
from jobs.repository import checkpoints, jobs
from jobs.settings import get_settings
from tests.support import ROOT, job_steps
from tests.support.fake_trainer import Behaviour
from tests.support.rest import refused
from tests.support.worker import wake

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def worker(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that takes jobs."""
    monkeypatch.chdir(ROOT)
    for name, value in {
        "TRAINER": "tests.support.fake_trainer",
        "QUICK_STARTS": "false",
        "WORKER_NAME": "tester",
    }.items():
        monkeypatch.setenv(f"CALIBRL_{name}", value)
    get_settings.cache_clear()
    job_steps.machine("tester", cpu_slots=1)
    job_steps.run("UPDATE workers SET heartbeat_at = now() + interval '1 hour'")


def paused_at_4() -> UUID:
    """A job of 8 steps that a health rule paused halfway, with the checkpoints of steps 3 and 4."""
    job_id = job_steps.submit(
        steps=8, seed=int(Behaviour.UNHEALTHY), prompts_per_step=1, algorithm={"type": "grpo", "mini_batches": 1}
    )
    wake()
    assert read(job_id).status is JobStatus.PAUSED
    return job_id


def read(job_id: UUID) -> models.Job:
    with session_scope() as session:
        return jobs.get(session, job_id)


def rows(job_id: UUID) -> list[models.Checkpoint]:
    with session_scope() as session:
        return checkpoints.of_job(session, job_id)


def move(monkeypatch: pytest.MonkeyPatch, target: Path) -> None:
    """Move the data folder, as its operator would."""
    shutil.move(get_settings().data_dir / "runs", target / "runs")
    use(monkeypatch, target)


def use(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    monkeypatch.setenv("CALIBRL_DATA_DIR", str(data_dir))
    get_settings.cache_clear()


def first_steps(job_id: UUID) -> list[int | None]:
    """The step from which each attempt went on."""
    with session_scope() as session:
        query = select(models.Attempt.first_step).where(models.Attempt.job_id == job_id)
        return [*session.scalars(query.order_by(models.Attempt.number))]


def test_a_job_resumes_from_its_checkpoint_in_a_moved_data_folder(
    http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = paused_at_4()
    move(monkeypatch, tmp_path / "new")
    (row,) = rows(job_id)
    assert not Path(row.path).exists() and artifacts.find_checkpoint(row) == artifacts.checkpoint_path(row)
    listed = http.get(f"/v1/jobs/{job_id}/checkpoints/4")
    assert listed.status_code == 200 and listed.json()["files"]
    fork = http.post(f"/v1/jobs/{job_id}/fork", json={"checkpoint": 4})
    assert fork.status_code == 201, fork.text
    job_steps.cancel(UUID(fork.json()["id"]))
    assert http.post(f"/v1/jobs/{job_id}/resume").status_code == 200
    wake()
    assert (read(job_id).status, first_steps(job_id)) == (JobStatus.SUCCEEDED, [0, 4])
    assert all(Path(row.path).is_relative_to(tmp_path / "new") for row in rows(job_id))


def test_a_retry_is_refused_while_the_checkpoints_are_missing(
    http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, before = paused_at_4(), get_settings().data_dir
    use(monkeypatch, tmp_path / "not-mounted")
    folder = get_settings().run_dir(job_id, 1) / "checkpoints"
    for verb in ("resume", "cancel", "retry"):
        answer = http.post(f"/v1/jobs/{job_id}/{verb}")
        if verb != "cancel":
            assert str(folder) in (detail := refused(answer, 409)["detail"]) and "CALIBRL_DATA_DIR" in detail
    text = refused(http.post(f"/v1/jobs/{job_id}/fork", json={"checkpoint": 4}), 422)
    assert str(folder) in str(text)
    use(monkeypatch, before)
    assert http.post(f"/v1/jobs/{job_id}/retry").status_code == 200


def test_an_attempt_without_its_checkpoints_is_paused_and_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, before = paused_at_4(), get_settings().data_dir
    with session_scope() as session:
        lifecycle.resume(session, job_id, actor="user")
    use(monkeypatch, tmp_path / "not-mounted")
    wake()
    found = read(job_id)
    assert (found.status, found.reason, found.attempt) == (JobStatus.PAUSED, None, 2)
    assert found.message is not None and str(tmp_path / "not-mounted" / "runs") in found.message
    assert not get_settings().job_dir(job_id).exists()
    use(monkeypatch, before)
    assert [Path(row.path).is_dir() for row in rows(job_id)] == [True]


def test_earlier_checkpoints_stay_until_the_attempt_has_saved_one() -> None:
    """The database lists none, as after a restore from a backup; the disk has one."""
    job_id = paused_at_4()
    (row,) = rows(job_id)
    job_steps.run("DELETE FROM checkpoints")
    job_steps.run("UPDATE jobs SET spec = jsonb_set(spec, '{seed}', '1')")  # its next attempt crashes halfway
    with session_scope() as session:
        lifecycle.resume(session, job_id, actor="user")
    wake()
    assert (read(job_id).status, read(job_id).reason) == (JobStatus.FAILED, Reason.CRASHED)
    assert Path(row.path).is_dir()


def test_a_checkpoint_that_is_a_link_out_of_its_job_is_not_found(tmp_path: Path) -> None:
    job_id = job_steps.submit()
    path = job_steps.checkpoint(job_id, 3)
    (row,) = rows(job_id)
    assert artifacts.find_checkpoint(row) == path
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert artifacts.find_checkpoint(row) is None
