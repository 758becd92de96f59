"""Visits of prompts over real HTTP: lists on planted lives, other runs, and a resume."""

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from calibrl.client import Client
from calibrl_core.report import EventFile
from jobs.db import session_scope
from jobs.repository import jobs, visits
from tests.support import job_steps
from tests.support.fake_trainer.train import visits as fake_visits
from tests.support.rest import refused
from worker.shipper import Shipper

pytestmark = pytest.mark.integration
# Correct rollouts of 4 at each visit, by the first digit of the digest, and whether there is an expert.
LIVES = {
    "a": ([0, 0, 0], True),  # only the expert solves it
    "b": ([0, 0, 0], False),
    "c": ([1, 4, 0], True),  # solved, then lost
    "d": ([2, 2, 2], True),  # never moved
    "e": ([0, 1, 3], True),
    "f": ([0], True),  # one visit says little
}


def digest(name: str) -> str:
    return name * 16


def visit(job_id: UUID, step: int, groups: dict[str, int]) -> None:
    rows = {
        "prompts": [digest(name) for name in groups],
        "ids": [f"row-{name}" for name in groups],
        "experts": [LIVES[name][1] for name in groups],
        "passed": [*groups.values()],
        "sizes": [4] * len(groups),
        "entropies": [0.1 * step] * len(groups),
        "gaps": [None] * len(groups),
        "rareness": [0.5] * len(groups),
    }
    with session_scope() as session:
        visits.put(session, job_id, [{"step": step, **rows}])


def planted() -> UUID:
    job_id = job_steps.submit()
    for turn in range(3):
        groups = {name: passed[turn] for name, (passed, _) in LIVES.items() if turn < len(passed)}
        visit(job_id, 10 * turn + 1, groups)
    return job_id


def names(client: Client, job_id: UUID, which: Any) -> list[str]:
    return [one.prompt[0] for one in client.prompts(job_id, which).data]


def test_prompts_are_in_the_lists_of_their_lives(client: Client) -> None:
    job_id = planted()
    assert names(client, job_id, "all") == [*"abcdef"]
    assert names(client, job_id, "only_expert") == ["a"]
    assert names(client, job_id, "lost") == ["c"]
    assert names(client, job_id, "never_moved") == ["a", "b", "d"]
    page = client.prompts(job_id, after=digest("b"), limit=2)
    assert ([one.prompt[0] for one in page.data], page.has_more) == (["c", "d"], True)
    assert page.counts.model_dump() == {"all": 6, "only_expert": 1, "lost": 1, "never_moved": 3}
    lost = page.data[0]
    assert (lost.prompt_id, lost.visits, lost.solved, lost.first_step, lost.last_step) == ("row-c", 3, 2, 1, 21)
    assert lost.shares == [0.25, 1.0, 0.0]
    assert lost.entropies == pytest.approx([0.1, 1.1, 2.1])


def test_a_prompt_has_its_visits_and_its_other_runs(client: Client) -> None:
    other, job_id = planted(), planted()
    found = client.prompt(job_id, digest("e"))
    assert [(one.step, one.passed, one.size, one.gap) for one in found.visits] == [
        (1, 0, 4, None),
        (11, 1, 4, None),
        (21, 3, 4, None),
    ]
    (run,) = found.runs
    assert (run.job_id, run.visits, run.solved, run.first_share, run.last_share) == (other, 3, 2, 0.0, 0.75)


def test_steps_that_are_taken_again_replace_their_visits(client: Client) -> None:
    job_id = planted()
    with session_scope() as session:
        jobs.rewind(session, job_id, 11)
    assert client.prompt(job_id, digest("c")).visits[-1].step == 11
    visit(job_id, 21, {"c": 4})
    visit(job_id, 21, {"c": 3})
    assert [one.passed for one in client.prompt(job_id, digest("c")).visits] == [1, 4, 3]
    assert names(client, job_id, "lost") == []


def test_visits_of_an_event_file_are_shipped(client: Client, tmp_path: Path) -> None:
    job_id = job_steps.submit()
    claim = job_steps.claim()
    report = EventFile(tmp_path)
    for step in (1, 2, 51):
        report.emit("visits", step=step, **fake_visits(step, 4))
    report.emit("visits", step=3, **fake_visits(3, 4) | {"passed": [1]})  # a list of another length
    report.close()
    assert Shipper(claim, tmp_path, "tester").ship()
    (lost,) = client.prompts(job_id, "lost").data
    assert (lost.prompt_id, lost.shares) == ("digits-1", [1.0, 0.0])
    assert client.prompts(job_id).counts.all == 8


def test_unknown_prompts_and_lists_are_refused(http: httpx.Client) -> None:
    job_id = planted()
    assert "has not visited" in refused(http.get(f"/v1/jobs/{job_id}/prompts/{'0' * 16}"), 404)["detail"]
    refused(http.get(f"/v1/jobs/{job_id}/prompts/row-c"), 422)
    refused(http.get(f"/v1/jobs/{job_id}/prompts", params={"list": "nonsense"}), 422)
    refused(http.get(f"/v1/jobs/{uuid4()}/prompts"), 404)
