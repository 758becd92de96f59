"""Keeps a worker's row in the database true, from the main process: the one that runs jobs may be busy for days."""

import mmap
import platform
import threading
import time
from collections.abc import Callable
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from jobs import lifecycle
from jobs.db import session_scope
from jobs.errors import NotFound
from jobs.repository import workers
from jobs.settings import Settings
from worker.database import AWAY

END_SECONDS = 5.0

log = structlog.get_logger()


class CurrentJob:
    """The job that the pool's process runs, in memory that it shares with the main process; made before the fork."""

    _NONE = bytes(16)

    def __init__(self) -> None:
        self._id = mmap.mmap(-1, len(self._NONE))

    def set(self, job_id: UUID | None) -> None:
        self._id[:] = job_id.bytes if job_id else self._NONE

    def get(self) -> UUID | None:
        return None if self._id[:] == self._NONE else UUID(bytes=self._id[:])


class Keeper(threading.Thread):
    """Registers the worker, tells that it lives and whether it stops, and sweeps; it outlives every failure."""

    def __init__(self, settings: Settings, current: CurrentJob) -> None:
        super().__init__(name="keeper", daemon=True)
        self._settings = settings
        self._current = current
        self._changed = threading.Event()
        self._stopping = False
        self._ended = False
        self._trouble: str | None = None  # what failed last time, logged once
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
        self.join(END_SECONDS)

    def run(self) -> None:
        while not self._ended:
            self._contact(self._tend)
            self._changed.wait(self._settings.heartbeat_seconds)
            self._changed.clear()
        self._contact(self._forget)

    def _contact(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # the next round tries again
            trouble = str(error.__cause__ or error).partition("\n")[0]
            if trouble != self._trouble:
                log.warning("database away" if isinstance(error, AWAY) else "keeper failed", error=trouble)
            self._trouble = trouble
        else:
            self._trouble = None

    def _tend(self) -> None:
        self._beat()
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + self._settings.sweep_seconds
            with session_scope() as session:
                lifecycle.sweep(session)

    def _forget(self) -> None:
        with session_scope() as session:
            workers.remove(session, self._settings.worker_name)

    def _beat(self) -> None:
        name = self._settings.worker_name
        with session_scope() as session:
            if not self._known(session):
                workers.register(session, name, platform.node(), self._settings.worker_device)
            if self._stopping:
                workers.mark_stopping(session, name)
        self._registered = True

    def _known(self, session: Session) -> bool:
        try:
            return self._registered and bool(workers.beat(session, self._settings.worker_name, self._current.get()))
        except NotFound:  # another worker of this name has ended
            return False
