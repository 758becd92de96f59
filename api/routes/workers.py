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
    """List machines by name: status, running jobs, and the state of their GPUs. A slot used by another project shows
    the job's id, but you cannot read that job.
    """
    rows = machines.page(session, after=after, limit=limit + 1)
    return Page(data=rows[:limit], has_more=len(rows) > limit)


@router.delete("/{name}", status_code=204)
def remove_worker(name: Name, session: Db, caller: Admin) -> None:
    """Remove a machine that is lost or offline and runs no job. Its worker adds it again at a start. For admins."""
    machines.remove(session, name)


@router.post("/{name}/drain")
def drain_worker(
    name: Name, session: Db, caller: Admin, drain: Annotated[Drain, Body(openapi_examples=DRAINS)] = GRACEFULLY
) -> Worker:
    """Drain a machine: it finishes its running jobs and takes no more. With `now`, they save a checkpoint and return
    to the queue, and another machine can continue them. For admins.
    """
    return machines.drain(session, name, now=drain.now)


@router.post("/{name}/undrain")
def undrain_worker(name: Name, session: Db, caller: Admin) -> Worker:
    """End the drain of a machine: it takes jobs again. For admins."""
    return machines.undrain(session, name)
