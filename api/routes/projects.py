"""Projects: what each may use, and what it has used."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query

from api.deps import Db, Limit, page
from api.examples import PROJECTS
from jobs import accounting
from jobs.repository import projects
from jobs.schemas import Page, Project, ProjectSettings, Slug, Usage

router = APIRouter(tags=["projects"])
Named = Annotated[Slug, Path(description="the project")]


@router.get("/projects")
def list_projects(
    session: Db,
    after: Annotated[str, Query(max_length=63, description="name of the last project seen")] = "",
    limit: Limit = 100,
) -> Page[Project]:
    """Projects by name."""
    return page(projects.page(session, after=after, limit=limit + 1), limit, Project)


@router.get("/projects/{slug}")
def read_project(slug: Named, session: Db) -> Project:
    """One project."""
    return Project.model_validate(projects.get(session, slug))


@router.put("/projects/{slug}")
def put_project(
    slug: Named, settings: Annotated[ProjectSettings, Body(openapi_examples=PROJECTS)], session: Db
) -> Project:
    """Add a project, or change what it may use: what is left out is set to its default."""
    return Project.model_validate(projects.put(session, slug, settings.model_dump()))


@router.get("/usage")
def read_usage(session: Db) -> Page[Usage]:
    """Slot-hours of this calendar month (UTC), by project and user."""
    return Page(data=accounting.month(session), has_more=False)
