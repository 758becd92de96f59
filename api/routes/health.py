"""Liveness and readiness, open to all and therefore without details; and the metrics for Prometheus."""

import structlog
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
log = structlog.get_logger()


@router.get("/healthz")
async def live() -> Health:
    """Confirm that the process answers."""
    return Health(ok=True, version=VERSION)


@router.get("/readyz", responses={503: {"model": Health}})
def ready(response: Response) -> Health:
    """Confirm that the database and the broker answer within seconds."""
    checks = {"database": _database(), "broker": _broker()}
    ok = all(check == "ok" for check in checks.values())
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
