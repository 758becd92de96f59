"""The REST API: `uvicorn api.main:app`."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI, Security
from fastapi.security import HTTPBearer

from api import documentation, errors
from api.background import repeating
from api.deps import SESSIONS
from api.http_methods import HeadRequests
from api.live import Hub, on_stop_signal
from api.middleware import VERSION, AllowedOrigins, Compression, RequestChecks, RequestLog
from api.query_parameters import known_parameters
from api.routes import (
    access,
    alert_rules,
    checkpoints,
    curves,
    datasets,
    evaluations,
    events,
    exports,
    health,
    histograms,
    hours,
    images,
    jobs,
    live,
    logs,
    metrics,
    openai_files,
    openai_graders,
    openai_jobs,
    openai_models,
    pipelines,
    projects,
    prompts,
    queue,
    reference_page,
    reproductions,
    results,
    samples,
    saved_views,
    schemas,
    studies,
    verdicts,
    webhooks,
    workers,
)
from api.sweeper import Sweeper
from api.yaml_bodies import YamlBodies
from calibrl_core.host.process_limits import keep_private
from jobs import db
from jobs.service_logs import configure_logs
from jobs.settings import get_settings
from jobs.studies.advancing import advance_due
from jobs.webhooks.sender import Sender

SEND_SECONDS = 1.0  # between two polls for webhook messages
MAX_BODY_BYTES = 1_000_000
COMPRESSED_BYTES = 2_000  # smallest answer that is compressed
DESCRIPTION = "Train vision-language models with reinforcement learning, and watch how they explore."


def _log_as_json() -> None:
    configure_logs("uvicorn")
    # `RequestLog` already writes a line per request.
    logging.getLogger("uvicorn.access").disabled = True


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    _log_as_json()
    keep_private()
    settings = get_settings()
    for name in ("database_url", "redis_url"):
        settings.need(name)
    app.state.sessions = asyncio.Semaphore(SESSIONS)
    app.state.readiness = health.Readiness()
    async with Hub() as app.state.hub:
        with (
            Sender() as send_messages,
            repeating("sweeper", settings.sweep_seconds, Sweeper()),
            repeating("studies", settings.sweep_seconds, advance_due),
            repeating("webhook sender", SEND_SECONDS, send_messages),
            on_stop_signal(app.state.hub.close),
        ):
            yield
    db.dispose()


def _v1() -> APIRouter:
    # `RequestChecks` has already checked the key; this adds it to the OpenAPI document.
    checks = [Security(HTTPBearer(auto_error=False)), Depends(known_parameters)]
    router = APIRouter(prefix="/v1", dependencies=checks)
    of_curves = (metrics, curves, exports, histograms, samples, images)
    of_results = (checkpoints, results, evaluations, verdicts, reproductions)
    of_runs = (events, *of_curves, prompts, logs, *of_results, live)
    of_teams = (studies, queue, workers, projects, hours, webhooks, alert_rules, access, saved_views)
    of_openai = (openai_files, openai_jobs, openai_graders, openai_models)
    for resource in (jobs, pipelines, *of_runs, datasets, *of_teams, *of_openai):
        router.include_router(resource.router)
    return router


def create_app() -> FastAPI:
    """Return the REST API as an ASGI application."""
    app = FastAPI(
        title="CalibRL",
        description=DESCRIPTION,
        version=VERSION,
        lifespan=_lifespan,
        docs_url=None,  # pages that load scripts from a public server
        redoc_url=None,
        redirect_slashes=False,  # each path has one form; a redirect would repeat hostile input in the answer
        responses=errors.RESPONSES,
        generate_unique_id_function=lambda route: route.name,  # operation ids are names of methods in generated clients
    )
    app.include_router(_v1())
    app.include_router(health.router)
    app.include_router(schemas.router)
    app.include_router(reference_page.router)
    errors.install(app)
    documentation.complete(app)
    app.add_middleware(YamlBodies)  # innermost: bodies are limited, and their senders known
    app.add_middleware(Compression, minimum_size=COMPRESSED_BYTES)
    app.add_middleware(RequestChecks, max_body_bytes=MAX_BODY_BYTES)
    app.add_middleware(AllowedOrigins)
    app.add_middleware(HeadRequests)
    app.add_middleware(RequestLog)  # outermost: the last one added
    return app


_log_as_json()  # at import: uvicorn has set its own format by now, and logs before the application starts
app = create_app()
