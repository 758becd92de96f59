"""States of the viewer's jobs, from which the browser makes its notifications: see `notifications.js`."""

import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from calibrl.client import CalibrlError, Client
from calibrl.schemas import JobSummary
from dashboard import signin
from dashboard.reads.service import LIVE_SECONDS
from dashboard.views.alerts import title_of

NEWEST = 50  # jobs of the viewer that an answer has
MOST = 60  # other jobs that a request can name
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


async def _news(request: Request) -> Response:
    """Return the states of the viewer's newest jobs, and of the jobs that the query names."""
    try:
        ids = [UUID(text) for text in request.query_params.get("jobs", "").split(",") if text][:MOST]
        return JSONResponse(await run_in_threadpool(_states, signin.key_of(request.cookies), ids), headers=HEADERS)
    except ValueError:
        return PlainTextResponse("jobs: not a list of ids", 400)
    except signin.SignedOut:
        return PlainTextResponse("Sign in first.", 401)
    except CalibrlError as error:
        return PlainTextResponse(str(error), error.status or 502)


def _states(key: str, ids: list[UUID]) -> dict[str, Any]:
    with Client(api_key=key, timeout=LIVE_SECONDS) as client:
        user = client.me().user
        found = {job.id: job for job in client.jobs(user=user, limit=NEWEST).data}
        if missing := [id for id in ids if id not in found]:  # those removed, or without access, are left out
            found |= {job.id: job for job in client.jobs(ids=missing, limit=MOST).data}
    return {"user": user, "now": datetime.now(UTC).isoformat(), "jobs": [_state(job) for job in found.values()]}


def _state(job: JobSummary) -> dict[str, Any]:
    return {
        "id": str(job.id),
        "name": CONTROL.sub(" ", job.name),
        "status": job.status.value,
        "final": job.status.final,
        "finished": job.finished_at.astimezone(UTC).isoformat() if job.finished_at else None,
        "alerts": [CONTROL.sub(" ", title_of(rule)) for rule in job.alerts],
    }


routes = [Route("/news", _news, methods=["GET"])]
