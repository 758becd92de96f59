"""Jobs that depend on others, on a real database: their release, their failure, and the checkpoint they start from."""

import threading
from pathlib import Path
from uuid import uuid4

import pytest

from calibrl.schemas import JobStatus, Reason
from jobs.errors import Invalid
from jobs.lifecycle import Claim
from tests.support.job_steps import (
    cancel,
    checkpoint,
    claim,
    expire,
    finish,
    history,
    run,
    status,
    submit,
    sweep,
)
from tests.support.waiting import LIMIT_SECONDS

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("database")]
S = JobStatus


def test_a_dependent_starts_when_all_it_needs_has_succeeded() -> None:
    first, second = submit(), submit()
    both = submit(first, second)
    assert status(both) is S.WAITING
    finish(claim(), S.SUCCEEDED)
    assert status(both) is S.WAITING
    finish(claim(), S.SUCCEEDED)
    assert status(both) is S.QUEUED
    assert status(submit(first, second)) is S.QUEUED


@pytest.mark.parametrize("how", ["fail", "cancel", "lose"])
def test_dependents_fail_with_their_dependency(how: str) -> None:
    root = submit()
    child = submit(root)
    other = submit()
    grandchild = submit(child, other)
    claimed = claim()
    if how == "fail":
        finish(claimed, S.FAILED, reason=Reason.CRASHED, message="boom")
    elif how == "cancel":
        assert cancel(root) is S.CANCELLING
        finish(claimed, S.CANCELLED)
    else:
        run("INSERT INTO attempts SELECT :id, n, 'w', now(), now(), 'queued', 'lost_worker', NULL, 0, 0, 0 "
            "FROM generate_series(8, 9) n", id=root)  # fmt: skip
        expire(root)
        assert sweep().failed == 1
    for id in (child, grandchild):
        last = history(id)[-1]
        assert (last.status, last.reason) == (S.FAILED, Reason.DEPENDENCY_FAILED)
        assert str(root) in str(last.message)
    assert status(other) is S.QUEUED


def test_two_dependencies_that_end_together_release_the_job() -> None:
    for _ in range(5):
        claims = [submit(), submit()]
        dependent = submit(*claims)
        held = [claim(), claim()]
        start = threading.Barrier(2)

        def end(claimed: Claim, start: threading.Barrier = start) -> None:
            start.wait(LIMIT_SECONDS)
            finish(claimed, S.SUCCEEDED)

        threads = [threading.Thread(target=end, args=(claimed,)) for claimed in held]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_SECONDS)
        assert status(dependent) is S.QUEUED
        finish(claim(), S.SUCCEEDED)


def test_the_sweep_releases_jobs_with_ended_dependencies() -> None:
    good, bad = submit(), submit()
    after_good, after_bad = submit(good), submit(bad)
    run("UPDATE jobs SET status = 'succeeded' WHERE id = :id", id=good)  # without a release of its dependents
    run("UPDATE jobs SET status = 'cancelled' WHERE id = :id", id=bad)
    assert sweep().released == 2
    assert (status(after_good), status(after_bad)) == (S.QUEUED, S.FAILED)


@pytest.mark.parametrize(("which", "expected"), [("best", 2), ("last", 3)])
def test_a_claim_finds_the_checkpoint_that_was_asked_for(which: str, expected: int) -> None:
    origin = submit()
    claimed = claim()
    paths = {step: checkpoint(origin, step, best=best) for step, best in ((1, True), (2, True), (3, False))}
    id = submit(model={"from_job": str(origin), "checkpoint": which})
    assert status(id) is S.WAITING
    finish(claimed, S.SUCCEEDED)
    assert claim().config["model"]["path"] == str(paths[expected])


def test_best_is_the_latest_if_none_is_marked() -> None:
    origin = submit()
    _, newest = (checkpoint(origin, step) for step in (1, 2))
    finish(claim(), S.SUCCEEDED)
    submit(model={"from_job": str(origin)})
    assert claim().config["model"]["path"] == str(newest)


def test_a_job_that_can_not_be_made_ready_fails_and_the_next_one_is_taken() -> None:
    origin = submit()
    finish(claim(), S.SUCCEEDED)
    without_checkpoint = submit(model={"from_job": str(origin)})
    outdated, good = submit(), submit()
    run("UPDATE jobs SET spec = spec || '{\"no_such_setting\": 1}' WHERE id = :id", id=outdated)
    assert claim().job_id == good
    assert history(without_checkpoint)[-1].reason is Reason.DEPENDENCY_FAILED
    assert history(outdated)[-1].reason is Reason.BAD_SPEC


def test_submission_names_every_missing_job_and_project(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        submit(uuid4(), model={"from_job": str(uuid4())}, project="nope")
    assert [error.field for error in caught.value.errors] == ["depends_on.0", "model.from_job", "project"]
