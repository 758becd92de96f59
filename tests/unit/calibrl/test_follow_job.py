"""Waiting for the end of a job."""

import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from calibrl.commands import follow_job
from calibrl.schemas import Job

from .conftest import JOB_ID, job


class Rows(dict[int, Any]):
    """Metrics that can have weak references."""


def test_waiting_keeps_no_earlier_state_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    last = Job.model_validate(job(status="succeeded"))
    alive: list[int] = []

    def states(client: object, id: object) -> Iterator[tuple[Job, Rows, list[Any]]]:
        made: list[weakref.ref[Rows]] = []
        for _ in range(5):
            rows = Rows()
            made.append(weakref.ref(rows))
            yield last, rows, []
            alive.append(sum(one() is not None for one in made))

    monkeypatch.setattr(follow_job, "follow", states)
    assert follow_job.last_state(None, JOB_ID) is last  # type: ignore[arg-type]
    assert max(alive) <= 2
