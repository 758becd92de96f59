"""Keeps a worker's row in the database true, from the main process: the one that runs jobs may be busy for days."""

import platform
import threading
import time
from multiprocessing.sharedctypes import RawArray
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from jobs import lifecycle
from jobs.db import session_scope
from jobs.errors import NotFound
from jobs.repository import workers
from jobs.settings import Settings
from worker import gpus
from worker.database import AWAY

log = structlog.get_logger()


class CurrentJob:
    """The job that the pool's process runs, as the main process sees it; made before the fork."""

    _NONE = bytes(16)

    def __init__(self) -> None:
        self._id = RawArray("B", self._NONE)

    def set(self, job_id: UUID | None) -> None:
        self._id[:] = list(job_id.bytes if job_id else self._NONE)

    def get(self) -> UUID | None:
        value = bytes(self._id)
        return None if value == self._NONE else UUID(bytes=value)


class Keeper(threading.Thread):
    """Registers the worker, tells that it lives and whether it stops, and sweeps; it outlives database outages."""

    def __init__(self, settings: Settings, current: CurrentJob) -> None:
        super().__init__(name="keeper", daemon=True)
        self._settings = settings
        self._current = current
        self._changed = threading.Event()
        self._stopping = False
        self._ended = False
        self._registered = False
        self._next_sweep = 0.0

    def stop(self) -> None:
        """Tell at once that this worker takes no further job. Safe in a signal handler."""
        self._stopping = True
        self._changed.set()

    def end(self) -> None:
        """Forget the worker, which has ended in order."""
        self._ended = True
        self._changed.set()
        self.join(self._settings.heartbeat_seconds)

    def run(self) -> None:
        away = False
        while not self._ended:
            try:
                self._beat()
                self._sweep_if_due()
                away = False
            except AWAY as error:
                if not away:
                    log.warning("database away", error=str(error.__cause__))
                away = True
            self._changed.wait(self._settings.heartbeat_seconds)
            self._changed.clear()
        with session_scope() as session:
            workers.remove(session, self._settings.worker_name)

    def _beat(self) -> None:
        name = self._settings.worker_name
        with session_scope() as session:
            if not self._known(session):
                workers.register(session, name, platform.node(), gpus.describe(self._settings.worker_device))
            if self._stopping:
                workers.mark_stopping(session, name)
        self._registered = True

    def _known(self, session: Session) -> bool:
        try:
            return self._registered and bool(workers.beat(session, self._settings.worker_name, self._current.get()))
        except NotFound:  # another worker of this name has ended
            return False

    def _sweep_if_due(self) -> None:
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + self._settings.sweep_seconds
            with session_scope() as session:
                lifecycle.sweep(session)
