"""The worker as Celery sees it, `celery -A worker.tasks worker`: one process a slot, and wake-ups that run jobs."""

from contextlib import suppress
from typing import Any

import structlog
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down

from jobs import lifecycle, queue
from jobs.db import session_scope
from jobs.lifecycle import Claim, LeaseLost, Order, Outcome
from jobs.schemas import JobStatus, Reason
from jobs.settings import Settings, get_settings
from worker.keeper import CurrentJob, Keeper
from worker.supervisor import Supervisor

log = structlog.get_logger()
app = queue.app
current = CurrentJob()
keepers: list[Keeper] = []  # of the main process: one, once it is ready


def _slot() -> dict[str, Any]:
    return {"worker_concurrency": 1, "task_default_queue": queue.queue_name(_gpus(get_settings()))}


def _gpus(settings: Settings) -> int:
    return int(settings.worker_device != "cpu")


app.add_defaults(_slot)


@app.task(name=queue.WAKE)  # type: ignore[untyped-decorator]
def wake() -> None:
    """Run jobs until there is none left for this slot, or this worker is to stop."""
    settings = get_settings()
    order = Order.CONTINUE
    while order is not Order.STOP and (claim := _claim(settings)):
        current.set(claim.job_id)
        try:
            order = _run(claim, settings)
        finally:
            current.set(None)


def _claim(settings: Settings) -> Claim | None:
    with session_scope() as session:
        return lifecycle.claim(session, worker=settings.worker_name, gpus=_gpus(settings))


def _run(claim: Claim, settings: Settings) -> Order:
    """Run one job; what the worker itself can't do, such as write its folder, fails that job and not the worker."""
    supervisor = Supervisor(claim, settings)
    try:
        supervisor.run()
    except Exception as error:
        log.exception("job could not be run", job=str(claim.job_id))
        message = f"worker {settings.worker_name} could not run it: {type(error).__name__}: {error}"
        with suppress(LeaseLost), session_scope() as session:
            lifecycle.finish(session, claim, Outcome(JobStatus.FAILED, Reason.CRASHED, message))
    return supervisor.order


def _on_ready(**_: Any) -> None:
    settings = get_settings()
    keepers.append(Keeper(settings, current))
    keepers[0].start()
    queue.wake(_gpus(settings))


def _on_shutting_down(**_: Any) -> None:
    for keeper in keepers:
        keeper.stop()


def _on_shutdown(**_: Any) -> None:
    for keeper in keepers:
        keeper.end()


worker_ready.connect(_on_ready)
worker_shutting_down.connect(_on_shutting_down)
worker_shutdown.connect(_on_shutdown)
