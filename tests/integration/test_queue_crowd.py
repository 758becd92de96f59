"""Many who ask things of the same jobs at once."""

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import UUID

import pytest

from calibrl.schemas import JobStatus, ProjectSettings
from jobs import lifecycle
from jobs.db import session_scope
from jobs.errors import Conflict
from jobs.lifecycle import Claim, LeaseLost
from jobs.repository import projects
from tests.support import job_steps
from tests.support.queue_model import LEASED
from tests.support.queue_rows import check_rows, looking_at
from tests.support.waiting import LIMIT_SECONDS

pytestmark = pytest.mark.integration
S = JobStatus


def crowd(seed: int, ids: list[UUID], claims: list[Claim]) -> None:
    """Act on the same jobs as one of several threads: a request may be refused, and must not fail in another way."""
    asking = [lifecycle.cancel, lifecycle.pause, lifecycle.resume, lifecycle.resume, lifecycle.retry]
    dice = random.Random(seed)
    for _ in range(40):
        with suppress(Conflict, LeaseLost):
            match dice.choice(["ask", "ask", "claim", "claim", "finish", "finish", "sweep"]):
                case "ask":
                    with session_scope() as session:
                        dice.choice(asking)(session, dice.choice(ids), actor="user")
                case "claim":
                    with session_scope() as session:
                        found = lifecycle.claim(session, worker=dice.choice(["cpu", "gpu"]))
                    claims += [found] if found else []
                case "finish" if claims:
                    job_steps.finish(dice.choice(claims), dice.choice([S.SUCCEEDED, S.FAILED, S.QUEUED, S.PAUSED]))
                case "sweep":
                    job_steps.expire(dice.choice(ids))
                    job_steps.sweep()


def test_concurrent_requests_break_nothing(database: str) -> None:
    job_steps.machine("cpu", cpu_slots=3)
    job_steps.machine("gpu", cpu_slots=0, gpus=6)
    with session_scope() as session:
        projects.put(session, "capped", ProjectSettings(max_gpus=2).model_dump())
    ids: list[UUID] = []
    for index in range(24):
        needs = [ids[-1], ids[-3]] if index % 4 == 3 else []
        ids.append(job_steps.submit(*needs, project="capped", resources={"gpus": index % 2}))
    claims: list[Claim] = []
    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(crowd, seed, ids, claims) for seed in range(6)]:
            done.result(LIMIT_SECONDS)
    job_steps.sweep()  # a dependent that was retried while what it needs was failing
    with looking_at(database) as connection:
        found = check_rows(connection)
    assert len({(claim.job_id, claim.attempt) for claim in claims}) == len(claims)
    assert sum(row.gpus for row in found.values() if row.status in LEASED) <= 2
