"""Runs one claimed job: starts the trainer, ships what it reports, renews the lease, obeys the heartbeat's orders."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog
from pydantic_core import to_json

from calibrl.processes import children
from calibrl.schemas import GpuReading, JobStatus, Reason
from calibrl_core.report import DISK_FULL_STATUS
from jobs import lifecycle
from jobs.db import session_scope
from jobs.files import allowed_sources, datasets
from jobs.lifecycle import Claim, LeaseLost, Order, Outcome
from jobs.repository import checkpoints, events
from jobs.settings import Settings
from worker import attempt_folder, gpus, multi_gpu
from worker.database_errors import AWAY
from worker.limits import End, Warn, Watch
from worker.shipper import LOG_FILE, Shipper
from worker.standby import Standby

T = TypeVar("T")

SHIP_SECONDS = 0.5
RETRY_SECONDS = 1.0
SETTLE_SECONDS = 600.0  # for so long a run's end is offered to a database that is away; then the lease's sweep decides
LOG_TAIL_LINES = 20
LOG_TAIL_BYTES = 8_000

log = structlog.get_logger()


class Supervisor:
    """One claim's run, from its config file to its outcome. Used once."""

    def __init__(self, claim: Claim, settings: Settings, standby: Standby) -> None:
        self._claim = claim
        self._settings = settings
        self._standby = standby
        self._run_dir = settings.run_dir(claim.job_id, claim.attempt)
        self._log_file = self._run_dir / LOG_FILE
        self._shipper = Shipper(claim, self._run_dir, settings.worker_name)
        self._next_beat = self._next_reading = 0.0
        self._kill_at: float | None = None
        self._told: Order | None = None  # why the trainer was asked to end; orders may change afterwards
        self._database_away = False
        self._tidied = False
        self._limits = Watch(claim.limits, time.monotonic(), claim.seconds_run)
        self._over: End | None = None  # the limit that the job has passed
        self.order = Order.CONTINUE

    def run(self) -> None:
        """Run the job to its end, whatever that is; `order` tells afterwards what it was told last.

        Raises:
            CheckpointsMissing: the job has checkpoints, and none is on this machine; no trainer was started.
        """
        attempt_folder.begin(self._run_dir, self._claim.checkpoints)
        self._write_config()
        self._log_start = self._log_file.stat().st_size if self._log_file.exists() else 0
        if not self._bring_data():
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
            status = process.wait(children.REAP_SECONDS)
        if self.order is not Order.ABANDON:
            self._settle(status, out_of_memory_kills() > kills_before)
            attempt_folder.forget_kept(self._run_dir)
        log.info("job left", job=str(self._claim.job_id), attempt=self._claim.attempt, order=self.order, status=status)

    def _write_config(self) -> None:
        partial = self._run_dir / "config.json.partial"
        partial.write_bytes(to_json(self._claim.config, indent=2))
        partial.replace(self._run_dir / "config.json")

    def _bring_data(self) -> bool:
        """Have the job's data on this machine; False where the job was told to end meanwhile."""
        for file in self._claim.files:
            for _ in datasets.bring(file):
                self._beat_if_due()
                if self.order is not Order.CONTINUE:
                    self._told = self.order
                    return False
        return True

    def _start(self) -> children.Process:
        module = f"{self._settings.trainer}.{self._claim.kind}"
        arguments = [str(self._run_dir / "config.json"), "--run-dir", str(self._run_dir)]
        bounds = allowed_sources.bounds()  # a link may lead elsewhere by the time that the trainer reads it
        arguments += [f"--root={root}" for root in bounds.roots] + [f"--closed={path}" for path in bounds.closed]
        environment, count = child_environment(self._claim.gpus), len(self._claim.gpus)
        if count > 1 and self._claim.kind == "train":  # an evaluation is one process
            environment |= multi_gpu.environment(self._settings.stop_grace_seconds)
            return children.start(multi_gpu.command(module, arguments, count), log=self._log_file, env=environment)
        return self._standby.start(module, arguments, log=self._log_file, env=environment)

    def _note_start(self) -> None:
        with session_scope() as session:
            lifecycle.start(session, self._claim)

    def _watch(self, process: children.Process) -> None:
        """Until the trainer has ended or the lease is lost."""
        more = False
        while not children.ended(process, 0 if more else SHIP_SECONDS):
            more = self._contact(self._shipper.ship) or False
            self._keep_checkpoints()
            self._tidy_once()
            self._beat_if_due()
            if self.order is Order.ABANDON:
                return
            if not (more or self._over or self._database_away):  # all that it has told so far has been read
                self._check_limits()
            if self.order is not Order.CONTINUE or self._over:
                self._end(process)

    def _keep_checkpoints(self) -> None:
        """Links to what the database has just been told of, for an attempt that may follow."""
        if self._shipper.checkpoints_told and (known := self._contact(self._known_checkpoints)):
            attempt_folder.keep(self._run_dir, known)
            self._shipper.checkpoints_told = False

    def _known_checkpoints(self) -> list[Path]:
        with session_scope() as session:
            lifecycle.fence(session, self._claim)
            return [Path(row.path) for row in checkpoints.of_job(session, self._claim.job_id)]

    def _tidy_once(self) -> None:
        """Remove the checkpoints of earlier attempts, once this one has reported all that it goes on from, and keeps a
        checkpoint of its own that takes their place."""
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
            case Warn(message=message):
                self._contact(lambda: self._note("warning", message))
            case End() as over:
                self._over = over

    def _gpu_readings(self) -> Sequence[GpuReading]:
        """Of the job's GPUs, at every heartbeat, where it has a limit on how they are used."""
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
            self._kill_at, self._told = now + self._settings.stop_grace_seconds, self.order
            children.ask(process)
        elif now >= self._kill_at:
            children.kill_group(process)

    def _beat_if_due(self) -> None:
        if time.monotonic() < self._next_beat or self.order is Order.ABANDON:
            return
        self._next_beat = time.monotonic() + self._settings.heartbeat_seconds
        order = self._contact(self._beat)
        if order is None:  # the lease may have ended by the time that the database is back
            self._next_beat = time.monotonic() + min(RETRY_SECONDS, self._settings.heartbeat_seconds)
        else:
            self.order = order

    def _beat(self) -> Order:
        with session_scope() as session:
            return lifecycle.heartbeat(session, self._claim)

    def _settle(self, status: int, starved: bool) -> None:
        """Ship what is left and say how it ended."""
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
        told_to_end = self._kill_at is not None  # a launcher calls that a failure, however its trainers took it
        finish = self._shipper.finish if status == 0 or told_to_end else None
        if self.order is Order.CANCEL:
            return Outcome(JobStatus.CANCELLED, Reason.USER)
        if finish and finish.status == "succeeded":
            return Outcome(JobStatus.SUCCEEDED, result=finish.result)
        if finish and finish.reason:  # a health rule wants a person to look first
            return Outcome(JobStatus.PAUSED, finish.reason, finish.message, finish.result)
        if self._over:
            return Outcome(JobStatus.FAILED, self._over.reason, self._over.message)
        if error := self._shipper.error:
            crashed = error.reason is Reason.CRASHED
            return Outcome(JobStatus.FAILED, error.reason, error.message + (self._log_tail() if crashed else ""))
        if status == DISK_FULL_STATUS:
            return Outcome(JobStatus.FAILED, Reason.DISK_FULL, f"the disk of {self._run_dir} is full")
        launched = len(self._claim.gpus) > 1  # a launcher that is told to end calls whatever follows a failure
        by_signal = launched or -status in (signal.SIGTERM, signal.SIGKILL)
        if finish or (self._told in (Order.STOP, Order.PAUSE) and by_signal):
            if self._told is Order.PAUSE:
                return Outcome(JobStatus.PAUSED, Reason.USER)
            return Outcome(JobStatus.QUEUED, Reason.WORKER_STOPPED)
        reason = Reason.OUT_OF_MEMORY if starved and -status == signal.SIGKILL else Reason.CRASHED
        return Outcome(JobStatus.FAILED, reason, how_it_ended(status) + self._log_tail())

    def _log_tail(self) -> str:
        with self._log_file.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, size - LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
        return "\n".join(["; its log ends:", *text.splitlines()[-LOG_TAIL_LINES:]])

    def _contact(self, action: Callable[[], T]) -> T | None:
        """Do something in the database; None while it is away, which a run outlives, and once the lease is lost."""
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
        if result:  # a shipper with nothing to ship hasn't asked the database
            self._database_away = False
        return result


def child_environment(indices: Sequence[int]) -> dict[str, str]:
    """This process's environment, without what a trainer has no need to know, and with its lease's GPUs only."""
    # torch then counts GPUs through their driver, and an import that asks for them doesn't start CUDA before its time.
    asked = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    return children.environment_without_secrets() | gpus.visible(indices) | asked | {"PYTHONUNBUFFERED": "1"}


def how_it_ended(status: int) -> str:
    """A child's exit status in words."""
    if status >= 0:
        return f"the trainer ended without a result (exit status {status})"
    return f"the trainer was killed by {signal.Signals(-status).name}"


def out_of_memory_kills() -> int:
    """How many processes of this process's control group (or machine) the kernel has killed for want of memory."""
    group = next(
        (line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")), "/"
    )
    counters = Path(f"/sys/fs/cgroup{group}/memory.events")
    counters = counters if counters.exists() else Path("/proc/vmstat")
    rows = (line.split() for line in counters.read_text().splitlines())
    return next((int(count) for name, count in rows if name == "oom_kill"), 0)
