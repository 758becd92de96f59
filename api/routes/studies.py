"""Studies: post, list, read, report, cancel, remove."""

from typing import Annotated, Any, Literal
from uuid import UUID

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, PlainTextResponse
from sqlalchemy.orm import Session

from api.deps import CurrentCaller, Db, ExistingStudy, Limit, WritableStudy, existing_study, page, read
from api.examples import STUDIES
from api.idempotency import IdempotentRoute
from calibrl.schemas import (
    FinishedRun,
    Page,
    RecordedRun,
    RecordedRunPost,
    Slug,
    Study,
    StudyReport,
    StudySpec,
    StudySummary,
)
from calibrl.schemas.studies import MAX_ARM_NAME, Seed
from calibrl.studies.document import Drawing, html, markdown
from calibrl.studies.pages import job_pages, report_parts
from jobs.repository import studies as rows
from jobs.studies import recorded, requests


class _RunRoute(IdempotentRoute):
    most_values = 20_000  # accuracies of a run on nearly 10,000 prompts


router = APIRouter(prefix="/studies", tags=["studies"], route_class=IdempotentRoute)
runs = APIRouter(route_class=_RunRoute)
REPORTING = CapacityLimiter(2)
RunArm = Annotated[str, Path(max_length=MAX_ARM_NAME, description="Name of the arm.")]
PAGES: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {}, "text/markdown": {}}}}


async def _begun(
    study: Annotated[StudySpec, Body(openapi_examples=STUDIES)], caller: CurrentCaller
) -> requests.Beginning:
    return await run_in_threadpool(requests.beginning, study, caller)


@router.post("", status_code=201, responses={200: {"model": Study, "description": "The study of this name continues"}})
def post_study(
    begun: Annotated[requests.Beginning, Depends(_begun)],
    session: Db,
    caller: CurrentCaller,
    response: Response,
) -> Study:
    """Add a study: the service submits its jobs, retries failed ones, stops arms and goes on after a restart. If the
    project has a study of this name, it continues with this description, and its failed and cancelled runs are
    submitted again (200)."""
    row, is_new = requests.post(session, begun, caller)
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/studies/{row.id}"
    caller.changed(row.id)
    return Study.model_validate(row)


@router.get("")
def list_studies(
    session: Db,
    caller: CurrentCaller,
    project: Slug | None = None,
    name: Annotated[str | None, Query(max_length=40, description="Name of the study.")] = None,
    after: Annotated[UUID | None, Query(description="Id of the last study of the previous page.")] = None,
    limit: Limit = 100,
) -> Page[StudySummary]:
    """List the studies of your projects, newest first, without their descriptions."""
    found = rows.page(
        session, visible_projects=caller.projects, project=project, name=name, after=after, limit=limit + 1
    )
    return page(found, limit, StudySummary)


@router.get("/{study_id}")
def read_study(study: ExistingStudy) -> Study:
    """Return one study with its progress."""
    return Study.model_validate(study)


@router.get("/{study_id}/report", response_model=StudyReport, responses=PAGES)
async def read_report(
    study_id: UUID,
    request: Request,
    caller: CurrentCaller,
    format: Annotated[
        Literal["json", "markdown", "html"], Query(description="`html` has figures, `markdown` only tables.")
    ] = "json",
    dashboard: Annotated[
        str | None,
        Query(
            max_length=500,
            pattern=r"^https?://[^\s\"<>]+$",
            description="Address of the dashboard, for the links to jobs. None: links to the API.",
        ),
    ] = None,
) -> StudyReport | Response:
    """Return the report of the runs that have ended so far: differences between arms with intervals and verdicts, arms,
    equal budgets, and runs. At most two reports are made at the same time."""

    def visible(session: Session) -> None:
        existing_study(study_id, session, caller)

    await read(request, visible)
    report = await to_thread.run_sync(requests.report, study_id, limiter=REPORTING)
    if format == "json":
        return report
    parts = report_parts(report, job_pages(str(request.base_url).rstrip("/"), dashboard))
    if format == "html":
        return HTMLResponse(html(parts, f"Study {report.name}"))
    tables = [part for part in parts if not isinstance(part, Drawing)]
    return PlainTextResponse(markdown(tables, ""), media_type="text/markdown")


@router.get("/{study_id}/runs")
def list_runs(study: ExistingStudy, session: Db) -> Page[FinishedRun]:
    """List the finished runs of a study, in the order of its seeds and arms, without their results."""
    return Page(data=requests.finished_runs(session, study), has_more=False)


@router.get("/{study_id}/runs/{arm}/{seed}")
async def read_run(study_id: UUID, arm: RunArm, seed: Seed, request: Request, caller: CurrentCaller) -> RecordedRun:
    """Return a finished run with its results per prompt, to add it to another service."""

    def visible(session: Session) -> None:
        existing_study(study_id, session, caller)

    await read(request, visible)
    return await to_thread.run_sync(requests.record_run, study_id, arm, seed, limiter=REPORTING)


@runs.post("/runs", status_code=204)
def add_run(post: RecordedRunPost, session: Db, caller: CurrentCaller) -> None:
    """Add a run that another service made to a project. Studies of the project use it in place of jobs with the same
    settings. It replaces an earlier one."""
    recorded.add(session, post, caller)


@router.post("/{study_id}/cancel")
def cancel_study(study_id: WritableStudy, session: Db) -> Study:
    """Cancel a study. It is `cancelling` until the open jobs that it submitted, and that no other study uses, have
    ended."""
    return Study.model_validate(requests.cancel(session, study_id))


@router.delete("/{study_id}", status_code=204)
def remove_study(study_id: WritableStudy, session: Db) -> None:
    """Remove a study that has ended. Its jobs stay."""
    requests.remove(session, study_id)


router.include_router(runs)
