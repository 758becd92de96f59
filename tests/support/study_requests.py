"""Studies over HTTP: posted, brought forward, their jobs ended."""

from typing import Any

import httpx

from jobs.db import session_scope
from jobs.repository import accuracies, studies
from jobs.studies import advancing
from tests.support import job_steps
from tests.support.study_jobs import STUDY, digests

PARTS = ("training", "evaluation")
JOBS = [f"slopes {arm} seed {seed} {part}" for seed in (0, 1) for arm in "ab" for part in PARTS]


def posted(http: httpx.Client, **changes: Any) -> dict[str, Any]:
    answer = http.post("/v1/studies", json=STUDY | changes)
    assert answer.status_code in (200, 201), answer.text
    assert str(answer.status_code) in http.get("/openapi.json").json()["paths"]["/v1/studies"]["post"]["responses"]
    assert answer.headers["location"] == f"/v1/studies/{answer.json()['id']}"
    study: dict[str, Any] = answer.json()
    return study


def advance() -> None:
    """Take a step of every study that has not ended, as if the pause between two steps were over."""
    job_steps.run("UPDATE studies SET next_at = now()")
    advancing.advance_due()


def read(http: httpx.Client, study: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"/v1/studies/{study['id']}").json()
    return found


def names(http: httpx.Client, **params: Any) -> list[str]:
    return [job["name"] for job in reversed(http.get("/v1/jobs", params=params).json()["data"])]


def end_all(values: dict[str, list[float]] | None = None) -> None:
    """Let all open jobs succeed after an hour. `values`: accuracies of the evaluations by arm."""
    row = {"model": "m", "model_index": 0, "split": "test", "samples": 1, "prompts": 3, "metrics": {}, "sources": {}}
    hour = "started_at = now() - interval '1 hour', finished_at = now(), step = 3, steps_total = 3"
    open_jobs = "status NOT IN ('succeeded', 'failed', 'cancelled')"
    with session_scope() as session:
        for study in studies.page(session, visible_projects=None, project=None, name=None, after=None, limit=10):
            for job in studies.jobs_of(session, study.id).values():
                if job.kind == "evaluate" and not job.status.final:
                    own = (values or {}).get(job.labels["study-arm"], [0.0, 0.5, 1.0])
                    accuracies.put(session, job.id, 0, "test", digests(own), own)
                    job.result = {"results": [row], "comparisons": []}
    job_steps.run(f"UPDATE jobs SET status = 'succeeded', {hour} WHERE {open_jobs}")
