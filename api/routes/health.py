"""Liveness and readiness, open to all and therefore without details; and the metrics for Prometheus."""

import asyncio
import time

import structlog
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response, Security
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from psycopg import Error, errors
from redis.exceptions import RedisError

from api import prometheus
from api.deps import Admin, Db
from api.middleware import VERSION
from calibrl.schemas import Health
from jobs import queue
from jobs.repository import health

router = APIRouter(tags=["health"])
READY_SECONDS = 1.0
log = structlog.get_logger()


@router.get("/healthz")
async def live() -> Health:
    """Confirm that the process answers."""
    return Health(ok=True, version=VERSION)


class Readiness:
    """The last check of database and broker. Requests at the same time share one check: anyone can send them."""

    def __init__(self) -> None:
        self._checking, self._threads = asyncio.Lock(), CapacityLimiter(1)
        self._until = 0.0
        self._checks: dict[str, str] = {}

    async def checks(self) -> dict[str, str]:
        """Return the result for each service, at most READY_SECONDS old."""
        async with self._checking:
            if time.monotonic() >= self._until:
                self._checks = await to_thread.run_sync(_checks, limiter=self._threads)
                self._until = time.monotonic() + READY_SECONDS
            return self._checks


def _checks() -> dict[str, str]:
    return {"database": _database(), "broker": _broker()}


@router.get("/readyz", responses={503: {"model": Health}})
async def ready(request: Request, response: Response) -> Health:
    """Confirm that the database answers within seconds. The broker is only reported: without it jobs start later."""
    checks = await request.app.state.readiness.checks()
    ok = checks["database"] == "ok"
    response.status_code = 200 if ok else 503
    return Health(ok=ok, version=VERSION, checks=checks)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
    dependencies=[Security(HTTPBearer(auto_error=False))],
)
def read_measures(request: Request, session: Db, caller: Admin) -> Response:
    """Return the metrics of the service for Prometheus. Needs an admin's key."""
    return Response(prometheus.render(session, request.app.state.hub.streams), media_type=CONTENT_TYPE_LATEST)


def _database() -> str:
    try:
        health.check()
    except errors.UndefinedTable:
        return "not migrated: run `alembic upgrade head`"
    except Error as error:
        log.warning("database check failed", error=str(error))
        return "unreachable"
    return "ok"


def _broker() -> str:
    try:
        queue.check()
    except (RedisError, OSError) as error:
        log.warning("broker check failed", error=str(error))
        return "unreachable"
    return "ok"
