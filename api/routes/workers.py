"""The machines that run jobs."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query

from api.deps import Admin, Db, Limit
from api.examples import DRAINS
from api.idempotency import IdempotentRoute
from calibrl.schemas import Drain, Page, Worker
from jobs.lifecycle import machines

router = APIRouter(prefix="/workers", tags=["workers"], route_class=IdempotentRoute)
Name = Annotated[str, Path(max_length=200, description="Name of the machine.")]
GRACEFULLY = Drain()


@router.get("")
def list_workers(
    session: Db,
    after: Annotated[str, Query(max_length=1000, description="Name of the last worker of the previous page.")] = "",
    limit: Limit = 100,
) -> Page[Worker]:
    """Machines by name: whether they take jobs, what they run, and how their GPUs do. A slot that another project's
    job takes shows that job's id, which opens nothing."""
    found = machines.page(session, after=after, limit=limit + 1)
    return Page(data=found[:limit], has_more=len(found) > limit)


@router.post("/{name}/drain")
def drain_worker(
    name: Name, session: Db, caller: Admin, drain: Annotated[Drain, Body(openapi_examples=DRAINS)] = GRACEFULLY
) -> Worker:
    """Have a machine finish what it runs and take no more jobs. With `now`, what it runs is given back, from a
    checkpoint, to go on elsewhere. For admins."""
    return machines.drain(session, name, now=drain.now)


@router.post("/{name}/undrain")
def undrain_worker(name: Name, session: Db, caller: Admin) -> Worker:
    """Have a drained machine take jobs again; for admins."""
    return machines.undrain(session, name)
