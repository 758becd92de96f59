"""Projects: limits, usage and members."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Response

from api import preconditions
from api.bodies import BoundedRoute
from api.deps import Admin, CurrentCaller, Db, Limit, page
from api.examples import MEMBERS, PROJECTS
from api.preconditions import IfMatch, IfNoneMatch
from calibrl.schemas import Member, MemberRole, Page, Project, ProjectSettings, Role, Slug, Usage, UserName
from jobs import models
from jobs.access import callers
from jobs.errors import PreconditionFailed
from jobs.lifecycle import project_limits
from jobs.repository import access as rows
from jobs.repository import projects
from jobs.scheduling import accounting

router = APIRouter(tags=["projects"], route_class=BoundedRoute)
Named = Annotated[Slug, Path(description="Slug of the project.")]
NamedUser = Annotated[UserName, Path(description="Name of the user.")]


@router.get("/projects")
def list_projects(
    session: Db,
    caller: CurrentCaller,
    after: Annotated[str, Query(max_length=63, description="Slug of the last project of the previous page.")] = "",
    limit: Limit = 100,
) -> Page[Project]:
    """List the projects that you belong to, by name; for admins, all."""
    return page(projects.page(session, visible_projects=caller.projects, after=after, limit=limit + 1), limit, Project)


@router.get("/projects/{slug}")
def read_project(slug: Named, session: Db, caller: CurrentCaller, response: Response) -> Project:
    """Return one project. Its `ETag` is that of its limits."""
    caller.need(slug, Role.VIEWER)
    return _tagged(projects.get(session, slug), response)


@router.put("/projects/{slug}")
def put_project(
    slug: Named,
    settings: Annotated[ProjectSettings, Body(openapi_examples=PROJECTS)],
    session: Db,
    caller: Admin,
    response: Response,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> Project:
    """Add a project, or change its limits; omitted fields get their defaults. A shorter retention takes effect after 7
    days. For admins."""
    caller.need(slug, Role.ADMIN)
    if if_none_match:
        added = projects.add(session, slug, settings.model_dump())
        if added is None:
            raise PreconditionFailed(f"Project {slug} exists already.")
        caller.changed(slug, None, Project.model_validate(added))
        return _tagged(added, response)
    row = projects.lock(session, slug)
    before = None if row is None else Project.model_validate(row)
    preconditions.check(if_match, row, preconditions.EDITED["project"])
    project = _tagged(project_limits.change(session, slug, row, settings.model_dump()), response)
    caller.changed(slug, before, project)
    return project


@router.patch("/projects/{slug}")
def change_project(
    slug: Named,
    changes: Annotated[ProjectSettings, Body(openapi_examples=PROJECTS)],
    session: Db,
    caller: Admin,
    response: Response,
    if_match: IfMatch = None,
) -> Project:
    """Change limits of a project; omitted fields stay. A shorter retention takes effect after 7 days. For admins."""
    caller.need(slug, Role.ADMIN)
    row = projects.lock(session, slug) or projects.get(session, slug)
    before = Project.model_validate(row)
    preconditions.check(if_match, row, preconditions.EDITED["project"])
    values = before.model_dump(include=set(ProjectSettings.model_fields)) | changes.model_dump(exclude_unset=True)
    project = _tagged(project_limits.change(session, slug, row, values), response)
    caller.changed(slug, before, project)
    return project


@router.delete("/projects/{slug}", status_code=204)
def remove_project(slug: Named, session: Db, caller: Admin) -> None:
    """Remove a project with its members and webhooks. Refused while it has jobs, datasets or studies. For admins."""
    caller.need(slug, Role.ADMIN)
    caller.changed(slug, Project.model_validate(projects.get(session, slug)))
    projects.remove(session, slug)


def _tagged(row: models.Project, response: Response) -> Project:
    project = Project.model_validate(row)
    preconditions.set_tag(response, project, preconditions.EDITED["project"])
    return project


@router.get("/projects/{slug}/members")
def list_members(slug: Named, session: Db, caller: CurrentCaller) -> Page[Member]:
    """List the members of a project and their roles."""
    caller.need(slug, Role.VIEWER)
    projects.get(session, slug)
    return Page(data=[Member.model_validate(row) for row in rows.members(session, slug)], has_more=False)


@router.put("/projects/{slug}/members/{user}")
def put_member(
    slug: Named,
    user: NamedUser,
    member: Annotated[MemberRole, Body(openapi_examples=MEMBERS)],
    session: Db,
    caller: CurrentCaller,
) -> Member:
    """Give a user a role in a project; for the project's admins."""
    caller.need(slug, Role.ADMIN)
    before = rows.role(session, slug, user)
    callers.put_member(session, slug, user, member.role)
    caller.changed(user, {"role": before}, member)
    return Member(user=user, role=member.role)


@router.delete("/projects/{slug}/members/{user}", status_code=204)
def remove_member(slug: Named, user: NamedUser, session: Db, caller: CurrentCaller) -> None:
    """Remove a user from a project; for the project's admins."""
    caller.need(slug, Role.ADMIN)
    caller.changed(user, {"role": rows.role(session, slug, user)})
    callers.remove_member(session, slug, user)


@router.get("/usage")
def read_usage(session: Db, caller: CurrentCaller) -> Page[Usage]:
    """Return the slot-hours of this calendar month (UTC), by project and user, in your projects."""
    return Page(data=[used for used in accounting.month(session) if caller.sees(used.project)], has_more=False)
