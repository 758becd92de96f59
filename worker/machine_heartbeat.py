"""The machine's heartbeat: a thread of the worker's main process, since the slots' processes can be busy for days."""

import mmap
import platform
import struct
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from calibrl.schemas import WorkerStatus
from calibrl_core.verifiers.sandbox import SandboxError, SandboxPolicy
from jobs import lifecycle
from jobs.db import is_disk_full, session_scope
from jobs.errors import NotFound
from jobs.repository import workers
from jobs.settings import Settings
from worker import gpus
from worker.database_errors import AWAY
from worker.janitor import Janitor

END_SECONDS = 5.0
VERSIONS_OF = ("calibrl", "torch", "transformers")  # read from their metadata: nothing is imported

log = structlog.get_logger()


class Slots:
    """The job and GPUs of each process of the pool, in memory shared with the main process; created before the fork."""

    _FORMAT = struct.Struct("16sQ")  # a job's id, and its GPUs as bits

    def __init__(self, count: int) -> None:
        self.count = count
        self._memory = mmap.mmap(-1, self._FORMAT.size * count)

    def put(self, slot: int, job_id: UUID | None, gpus: Sequence[int] = ()) -> None:
        """Record the job (None: no job) and the GPUs of a slot."""
        id = job_id.bytes if job_id else bytes(16)
        self._FORMAT.pack_into(self._memory, self._FORMAT.size * (slot % self.count), id, sum(1 << gpu for gpu in gpus))

    def running(self) -> list[UUID]:
        """Return the jobs of all busy slots. A job claimed again while its old slot hangs is listed twice."""
        return [UUID(bytes=id) for id, _ in self._FORMAT.iter_unpack(self._memory) if id != bytes(16)]

    def gpus(self) -> set[int]:
        """Return the GPU indices that slots use, also those of a slot that has lost its lease."""
        return {gpu for _, bits in self._FORMAT.iter_unpack(self._memory) for gpu in range(64) if bits >> gpu & 1}


class MachineHeartbeat(threading.Thread):
    """Thread that registers the machine, reports its state and sweeps; no failure ends it.

    It also starts the janitor, a thread that removes leftover files.
    """

    def __init__(self, settings: Settings, slots: Slots) -> None:
        super().__init__(name="machine-heartbeat", daemon=True)
        self._settings = settings
        self._slots = slots
        self._janitor = Janitor(settings)
        self._changed = threading.Event()
        self._stopping = False
        self._ended = False
        self._trouble: str | None = None  # the last failure, so that it is logged once
        self._registered = False
        self._next_sweep = 0.0
        self._recovery = lifecycle.Recovery()

    def stop(self) -> None:
        """Report at once that this worker takes no further job. Safe in a signal handler."""
        self._stopping = True
        self._changed.set()

    def end(self) -> None:
        """Report that the worker has ended, and stop both threads."""
        self._ended = True
        self._janitor.stop()
        self._changed.set()
        self.join(END_SECONDS)

    def run(self) -> None:
        self._janitor.start()
        while not self._ended:
            self._contact(self._tend)
            self._changed.wait(self._settings.heartbeat_seconds)
            self._changed.clear()
        self._contact(lambda: self._report(WorkerStatus.OFFLINE))

    def _contact(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # the next round tries again
            trouble = str(error.__cause__ or error).partition("\n")[0]
            if trouble != self._trouble:
                away = "disk of the database full" if is_disk_full(error) else "database away"
                log.warning(away if isinstance(error, AWAY) else "heartbeat failed", error=trouble)
            self._trouble = trouble
            self._recovery.delay()
        else:
            self._trouble = None

    def _tend(self) -> None:
        self._beat()
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + self._settings.sweep_seconds
            with session_scope() as session:
                lifecycle.sweep(session, recover=self._recovery.allowed())

    def _report(self, status: WorkerStatus) -> None:
        with session_scope() as session:
            workers.set_status(session, self._settings.worker_name, status)

    def _beat(self) -> None:
        """Send one heartbeat. The GPUs are read between two transactions: a free GPU was released before the read."""
        name = self._settings.worker_name
        with session_scope() as session:
            unclean = workers.unclean_gpus(session, name)
        readings = gpus.read(gpus.gpu_indices(self._settings.worker_gpus))
        clean = {gpu.index for gpu in readings if gpus.is_free(gpu)} - self._slots.gpus()
        with session_scope() as session:
            if not self._registered:
                self._register(session)
            try:
                workers.record_heartbeat(session, name, readings, self._slots.running())
            except NotFound:  # the machine was removed by a user
                self._registered = False
                return
            workers.mark_clean(session, name, clean & unclean if self._registered else clean)
            if self._stopping:
                workers.set_status(session, name, WorkerStatus.STOPPING)
            elif not self._registered or clean & unclean:
                lifecycle.plan_after_commit(session)
        self._registered = True

    def _register(self, session: Session) -> None:
        settings = self._settings
        workers.register(
            session,
            settings.worker_name,
            host=platform.node(),
            labels=settings.worker_labels,
            versions=versions() | sandbox_report(settings.sandbox),
            cpu_slots=settings.worker_cpu_slots,
        )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a trainer's results can depend on."""
    found = {"python": platform.python_version()}
    for package in VERSIONS_OF:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def sandbox_report(policy: SandboxPolicy) -> dict[str, str]:
    """Return how this machine runs functions of users, for its versions; empty if it cannot."""
    try:
        return {"sandbox": "bubblewrap" if policy.confines() else "plain processes"}
    except SandboxError as error:
        log.info("jobs with functions of users fail on this machine", reason=str(error))
        return {}
