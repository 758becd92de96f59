"""Views of the dashboard that the caller has saved by name."""

from typing import Annotated

from fastapi import APIRouter, Body, Path

from api.bodies import BoundedRoute
from api.deps import CurrentCaller, Db
from api.examples import VIEWS
from calibrl.schemas import NewView, Page, SavedView, ViewName
from calibrl.schemas.saved_views import MOST_VIEWS
from jobs.errors import Conflict, NotFound
from jobs.repository import saved_views

router = APIRouter(prefix="/views", tags=["views"], route_class=BoundedRoute)
Named = Annotated[ViewName, Path(description="Name of the view.")]


@router.get("")
def list_views(session: Db, caller: CurrentCaller) -> Page[SavedView]:
    """List the views that you have saved, by name."""
    found = saved_views.of_user(session, caller.user)
    return Page(data=[SavedView.model_validate(row) for row in found], has_more=False)


@router.put("/{name}")
def put_view(
    session: Db, caller: CurrentCaller, name: Named, view: Annotated[NewView, Body(openapi_examples=VIEWS)]
) -> SavedView:
    """Save a view. It replaces your view of the same name."""
    if saved_views.count_others(session, caller.user, name) >= MOST_VIEWS:
        raise Conflict(f"You have {MOST_VIEWS} saved views: remove one first.")
    return SavedView.model_validate(saved_views.put(session, caller.user, name, view.address))


@router.delete("/{name}", status_code=204)
def remove_view(session: Db, caller: CurrentCaller, name: Named) -> None:
    """Remove a view that you have saved."""
    if not saved_views.remove(session, caller.user, name):
        raise NotFound(f"You have no saved view {name!r}.")
