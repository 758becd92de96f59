"""The Celery worker, `celery -A worker.tasks worker`: one per machine, one process per slot. A wake-up runs jobs."""

import logging
from typing import Any

import structlog
from billiard.process import current_process
from celery.signals import setup_logging, worker_process_init, worker_ready, worker_shutdown, worker_shutting_down

from calibrl_core.host.process_limits import keep_private
from jobs import lifecycle, queue
from jobs.db import session_scope
from jobs.lifecycle import Claim
from jobs.service_logs import configure_logs
from jobs.settings import Settings, get_settings
from worker import gpus
from worker.machine_heartbeat import MachineHeartbeat, Slots
from worker.part import JobPart
from worker.standby import Standby
from worker.supervisor import Supervisor
from worker.trainer_process import child_environment

keep_private()  # at import: also the process of a health check, which has the same variables
log = structlog.get_logger()
app = queue.app
heartbeats: list[MachineHeartbeat] = []  # in the main process: one, once the worker is ready
standbys: list[Standby] = []  # in a slot's process: one, from its start


def _slot_count() -> int:
    settings = get_settings()
    return max(1, settings.worker_cpu_slots + len(gpus.read(gpus.gpu_indices(settings.worker_gpus))))


slots = Slots(_slot_count())


def _configuration() -> dict[str, Any]:
    return {
        "worker_concurrency": slots.count,
        "task_default_queue": queue.queue_name(get_settings().worker_name),
    }


app.add_defaults(_configuration)


@app.task(name=queue.WAKE)  # type: ignore[untyped-decorator]
def wake() -> None:
    """Run jobs until none is left for this machine. A draining or stopping machine gets none."""
    settings = get_settings()
    standby = standbys[0] if standbys else Standby(settings, child_environment(()))
    while claim := _take(settings):
        slots.put(_slot(), claim.job_id, claim.gpus)
        try:
            _run(claim, settings, standby)
        finally:
            slots.put(_slot(), None)
        if standbys:
            standby.prepare()


def _slot() -> int:
    return int(getattr(current_process(), "index", None) or 0)


def _take(settings: Settings) -> Claim | None:
    """Take a part of a job that already runs on other machines, else a job of its own."""
    with session_scope() as session:
        if part := lifecycle.take_part(session, worker=settings.worker_name):
            return part
    with session_scope() as session:
        return lifecycle.claim(session, worker=settings.worker_name)


def _run(claim: Claim, settings: Settings, standby: Standby) -> None:
    """Run one job, or the part of this machine."""
    (JobPart(claim, settings) if claim.rank else Supervisor(claim, settings, standby)).run()


def _on_setup_logging(loglevel: int | None = None, **_: Any) -> None:
    """Replace Celery's logging before the fork, so that the slots' processes use it too."""
    configure_logs("")
    logging.getLogger().setLevel(loglevel or logging.INFO)


def _on_process_init(**_: Any) -> None:
    slots.put(_slot(), None)  # the slot's previous process may have been killed while it ran a job
    standbys[:] = [Standby(get_settings(), child_environment(()))]
    standbys[0].prepare()


def _on_ready(**_: Any) -> None:
    heartbeats.append(MachineHeartbeat(get_settings(), slots))
    heartbeats[0].start()  # the first heartbeat wakes this worker if jobs wait


def _on_shutting_down(**_: Any) -> None:
    for heartbeat in heartbeats:
        heartbeat.stop()


def _on_shutdown(**_: Any) -> None:
    for heartbeat in heartbeats:
        heartbeat.end()


setup_logging.connect(_on_setup_logging)
worker_process_init.connect(_on_process_init)
worker_ready.connect(_on_ready)
worker_shutting_down.connect(_on_shutting_down)
worker_shutdown.connect(_on_shutdown)
