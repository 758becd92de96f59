"""Runs one claimed job: starts the trainer, ships its reports, renews the lease, obeys the heartbeat's orders."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import structlog
from pydantic_core import to_json

from calibrl.processes import children
from calibrl.schemas import GpuReading, JobStatus, Reason
from calibrl_core.process_limits import REAP_SECONDS
from calibrl_core.report import DISK_FULL_STATUS
from jobs import lifecycle
from jobs.db import session_scope
from jobs.files import allowed_sources, datasets, hub_models
from jobs.lifecycle import Claim, LeaseLost, Order, Outcome
from jobs.repository import checkpoints, events
from jobs.settings import Settings
from worker import attempt_folder, gpus, multi_gpu
from worker.database_errors import AWAY
from worker.limits import LimitExceeded, LimitWarning, LimitWatch
from worker.shipper import LOG_FILE, Shipper
from worker.standby import Standby

T = TypeVar("T")

SHIP_SECONDS = 0.5
RETRY_SECONDS = 1.0
SETTLE_SECONDS = (
    600.0  # retry period for the outcome while the database is unreachable; then the sweep of expired leases decides
)
LOG_TAIL_LINES = 20
LOG_TAIL_BYTES = 8_000

log = structlog.get_logger()


class Supervisor:
    """The run of one claim, from its config file to its outcome. Used once."""

    def __init__(self, claim: Claim, settings: Settings, standby: Standby) -> None:
        self._claim = claim
        self._settings = settings
        self._standby = standby
        self._run_dir = settings.run_dir(claim.job_id, claim.attempt)
        self._log_file = self._run_dir / LOG_FILE
        self._shipper = Shipper(claim, self._run_dir, settings.worker_name)
        self._next_beat = self._next_reading = 0.0
        self._kill_at: float | None = None
        self._stop_order: Order | None = None  # in force when the trainer was asked to end; later orders can differ
        self._database_away = False
        self._tidied = False
        self._limits = LimitWatch(claim.limits, time.monotonic(), claim.seconds_run)
        self._over: LimitExceeded | None = None  # the limit that the job exceeded
        self.order = Order.CONTINUE

    def run(self) -> None:
        """Run the job to its end. Afterwards `order` holds the last order received.

        Raises:
            CheckpointsMissing: the job has checkpoints, but none is on this machine; no trainer was started.
        """
        attempt_folder.begin(self._run_dir, self._claim.checkpoints)
        self._write_config()
        self._log_start = self._log_file.stat().st_size if self._log_file.exists() else 0
        if not self._bring_inputs():
            if self.order is not Order.ABANDON:
                self._settle(-signal.SIGTERM, starved=False)
            return
        kills_before = out_of_memory_kills()
        process = self._start()
        try:
            self._contact(self._note_start)
            self._watch(process)
        finally:
            children.kill_group(process)
            status = process.wait(REAP_SECONDS)
        if self.order is not Order.ABANDON:
            self._settle(status, out_of_memory_kills() > kills_before)
            attempt_folder.forget_kept(self._run_dir)
        log.info("job left", job=str(self._claim.job_id), attempt=self._claim.attempt, order=self.order, status=status)

    def _write_config(self) -> None:
        partial = self._run_dir / "config.json.partial"
        partial.write_bytes(to_json(self._claim.config, indent=2))
        partial.replace(self._run_dir / "config.json")

    def _bring_inputs(self) -> bool:
        """Bring the job's data and models to this machine; return False if an order to end arrived meanwhile."""
        for _ in self._inputs():
            self._beat_if_due()
            if self.order is not Order.CONTINUE:
                self._stop_order = self.order
                return False
        return True

    def _inputs(self) -> Iterator[None]:
        for file in self._claim.files:
            yield from datasets.fetch_to_machine(file)
        for model in self._claim.hub_models:
            yield from hub_models.fetch_to_machine(model, self._note_download)

    def _note_download(self, message: str) -> None:
        self._contact(lambda: self._note("download", message))

    def _start(self) -> children.Process:
        module = f"{self._settings.trainer}.{self._claim.kind}"
        arguments = [str(self._run_dir / "config.json"), "--run-dir", str(self._run_dir)]
        bounds = allowed_sources.bounds()  # the trainer checks again: a link can change after this check
        arguments += [f"--root={root}" for root in bounds.roots] + [f"--closed={path}" for path in bounds.closed]
        arguments.append(f"--cache={self._settings.data_dir / 'cache'}")
        environment, count = child_environment(self._claim.gpus), self._processes
        if count > 1:
            environment |= multi_gpu.environment(self._settings.stop_grace_seconds)
            return children.start(multi_gpu.command(module, arguments, count), log=self._log_file, env=environment)
        return self._standby.start(module, arguments, log=self._log_file, env=environment)

    @property
    def _processes(self) -> int:
        return multi_gpu.process_count(self._claim.config, len(self._claim.gpus))

    def _note_start(self) -> None:
        with session_scope() as session:
            lifecycle.start(session, self._claim)

    def _watch(self, process: children.Process) -> None:
        """Ship, renew the lease and check limits until the trainer has ended or the lease is lost."""
        more = False
        while not children.ended(process, 0 if more else SHIP_SECONDS):
            more = self._contact(self._shipper.ship) or False
            self._keep_checkpoints()
            self._tidy_once()
            self._beat_if_due()
            if self.order is Order.ABANDON:
                return
            if not (more or self._over or self._database_away):  # all reports so far have been read
                self._check_limits()
            if self.order is not Order.CONTINUE or self._over:
                self._end(process)

    def _keep_checkpoints(self) -> None:
        """Update the links to the checkpoints just recorded, for a possible next attempt."""
        if self._shipper.checkpoints_reported and (known := self._contact(self._known_checkpoints)):
            attempt_folder.keep(self._run_dir, known)
            self._shipper.checkpoints_reported = False

    def _known_checkpoints(self) -> list[Path]:
        with session_scope() as session:
            lifecycle.fence(session, self._claim)
            return [Path(row.path) for row in checkpoints.of_job(session, self._claim.job_id)]

    def _tidy_once(self) -> None:
        """Remove the checkpoints of earlier attempts once this attempt has recorded one of its own in their place."""
        if self._tidied or not self._shipper.stepped or not attempt_folder.has_checkpoint(self._run_dir):
            return
        if self._contact(self._forget_earlier):
            attempt_folder.remove_earlier_checkpoints(self._run_dir)
            self._tidied = True

    def _forget_earlier(self) -> bool:
        with session_scope() as session:
            lifecycle.fence(session, self._claim)
            known = checkpoints.of_job(session, self._claim.job_id)
            if not any(Path(row.path).parent.parent == self._run_dir for row in known):
                return False
            checkpoints.forget_elsewhere(session, self._claim.job_id, self._run_dir)
        return True

    def _check_limits(self) -> None:
        match self._limits.check(time.monotonic(), self._shipper.step, self._gpu_readings()):
            case LimitWarning(message=message):
                self._contact(lambda: self._note("warning", message))
            case LimitExceeded() as over:
                self._over = over

    def _gpu_readings(self) -> Sequence[GpuReading]:
        """Read the job's GPUs once per heartbeat, if the job has a limit on their utilisation."""
        if self._claim.limits.min_gpu_utilisation is None or time.monotonic() < self._next_reading:
            return ()
        self._next_reading = time.monotonic() + self._settings.heartbeat_seconds
        return gpus.read(self._claim.gpus)

    def _note(self, type: str, message: str) -> bool:
        with session_scope() as session:
            job = lifecycle.fence(session, self._claim)
            events.add(session, job.id, type, actor=self._settings.worker_name, message=message)
        return True

    def _end(self, process: children.Process) -> None:
        now = time.monotonic()
        if self._kill_at is None:
            self._kill_at, self._stop_order = now + self._settings.stop_grace_seconds, self.order
            children.ask(process)
        elif now >= self._kill_at:
            children.kill_group(process)

    def _beat_if_due(self) -> None:
        if time.monotonic() < self._next_beat or self.order is Order.ABANDON:
            return
        self._next_beat = time.monotonic() + self._settings.heartbeat_seconds
        order = self._contact(self._beat)
        if order is None:  # try again soon: the lease can expire while the database is unreachable
            self._next_beat = time.monotonic() + min(RETRY_SECONDS, self._settings.heartbeat_seconds)
        else:
            self.order = order

    def _beat(self) -> Order:
        with session_scope() as session:
            return lifecycle.heartbeat(session, self._claim)

    def _settle(self, status: int, starved: bool) -> None:
        """Ship the rest of the reports and record the outcome."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while self.order is not Order.ABANDON and time.monotonic() < deadline:
            self._beat_if_due()
            more = self._contact(self._shipper.ship)
            self._tidy_once()
            if more is False and self._contact(lambda: self._finish(status, starved)):
                return
            if not more:
                time.sleep(RETRY_SECONDS)

    def _finish(self, status: int, starved: bool) -> bool:
        with session_scope() as session:
            lifecycle.finish(session, self._claim, self._outcome(status, starved))
        return True

    def _outcome(self, status: int, starved: bool) -> Outcome:
        """Return the outcome of the run; the first row that applies decides.

        | situation                                       | outcome                         |
        |-------------------------------------------------|---------------------------------|
        | order CANCEL                                    | cancelled                       |
        | trainer reported success                        | succeeded                       |
        | trainer reported a stop by a health rule        | paused (health)                 |
        | a limit of the job was exceeded                 | failed (that limit's reason)    |
        | trainer reported an error                       | failed (its reason)             |
        | exit status of a full disk                      | failed (disk_full)              |
        | trainer stopped or died after PAUSE             | paused (user)                   |
        | trainer stopped or died after STOP              | queued (worker_stopped)         |
        | killed, and the kernel killed for memory        | failed (out_of_memory)          |
        | anything else                                   | failed (crashed)                |
        """
        asked_to_end = (
            self._kill_at is not None
        )  # a launcher then exits with a failure, even if its trainers stopped well
        finish = self._shipper.finish if status == 0 or asked_to_end else None
        if self.order is Order.CANCEL:
            return Outcome(JobStatus.CANCELLED, Reason.USER)
        if finish and finish.status == "succeeded":
            return Outcome(JobStatus.SUCCEEDED, result=finish.result)
        if finish and finish.reason:  # a health rule: a person must decide
            return Outcome(JobStatus.PAUSED, finish.reason, finish.message, finish.result)
        if self._over:
            return Outcome(JobStatus.FAILED, self._over.reason, self._over.message)
        if error := self._shipper.error:
            crashed = error.reason is Reason.CRASHED
            return Outcome(JobStatus.FAILED, error.reason, error.message + (self._log_tail() if crashed else ""))
        if status == DISK_FULL_STATUS:
            return Outcome(JobStatus.FAILED, Reason.DISK_FULL, f"the disk of {self._run_dir} is full")
        launched = self._processes > 1  # a launcher exits with a failure after a signal
        by_signal = launched or -status in (signal.SIGTERM, signal.SIGKILL)
        if finish or (self._stop_order in (Order.STOP, Order.PAUSE) and by_signal):
            if self._stop_order is Order.PAUSE:
                return Outcome(JobStatus.PAUSED, Reason.USER)
            return Outcome(JobStatus.QUEUED, Reason.WORKER_STOPPED)
        reason = Reason.OUT_OF_MEMORY if starved and -status == signal.SIGKILL else Reason.CRASHED
        return Outcome(JobStatus.FAILED, reason, describe_exit(status) + self._log_tail())

    def _log_tail(self) -> str:
        with self._log_file.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, size - LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
        return "\n".join(["", "Last log lines:", *text.splitlines()[-LOG_TAIL_LINES:]])

    def _contact(self, action: Callable[[], T]) -> T | None:
        """Run a database action; return None if the database is unreachable or the lease is lost."""
        try:
            result = action()
        except LeaseLost:
            self.order = Order.ABANDON
            return None
        except AWAY as error:
            if not self._database_away:
                log.warning("database away; the run goes on", job=str(self._claim.job_id), error=str(error.__cause__))
            self._database_away = True
            return None
        if result:  # a shipper with nothing to ship does not query the database
            self._database_away = False
        return result


def child_environment(indices: Sequence[int]) -> dict[str, str]:
    """Return the environment of a trainer: this process's, without secrets, with only the GPUs of its lease visible."""
    # torch then counts GPUs through NVML: an import that asks for their number does not initialise CUDA.
    nvml = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    return children.environment_without_secrets() | gpus.visible(indices) | nvml | {"PYTHONUNBUFFERED": "1"}


def describe_exit(status: int) -> str:
    """Describe a child's exit status."""
    if status >= 0:
        return f"Trainer exited with code {status}"
    return f"Trainer was killed by {signal.Signals(-status).name}"


def out_of_memory_kills(root: Path = Path("/")) -> int:
    """Return how many processes of this control group (or machine) the kernel has killed for lack of memory.

    `root`: the folder that holds proc and sys.
    """
    groups = (root / "proc/self/cgroup").read_text().splitlines()
    group = next((line[3:] for line in groups if line.startswith("0::")), "/")
    counters = root / "sys/fs/cgroup" / group.lstrip("/") / "memory.events"
    counters = counters if counters.exists() else root / "proc/vmstat"
    rows = (line.split() for line in counters.read_text().splitlines())
    return next((int(count) for name, count in rows if name == "oom_kill"), 0)
