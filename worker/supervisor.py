"""Runs one claimed job: starts the trainer, ships its reports, renews the lease, obeys the heartbeat's orders."""

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from sqlalchemy.orm import Session

from calibrl.processes import children
from calibrl.schemas import GpuReading, JobStatus, Reason
from calibrl_core.host.process_limits import REAP_SECONDS
from jobs import lifecycle
from jobs.db import session_scope
from jobs.lifecycle import Claim, Order, Outcome
from jobs.repository import checkpoints
from jobs.settings import Settings
from worker import attempt_folder, gpus, meeting, trainer_process
from worker.claim_lease import RETRY_SECONDS, ClaimLease
from worker.limits import LimitExceeded, LimitWarning, LimitWatch
from worker.outcomes import End, outcome_of, outcome_of_failure
from worker.shipper import LOG_FILE, Shipper
from worker.standby import Standby
from worker.stopping import Stopping
from worker.trainer_process import CONFIG_FILE, SERVICES_FILE, child_environment, out_of_memory_kills

SHIP_SECONDS = 0.5
SETTLE_SECONDS = (
    600.0  # retry period for the outcome while the database is unreachable; then the sweep of expired leases decides
)

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
        self._next_reading = 0.0
        self._stopping = Stopping(self._run_dir, settings)
        self._stop_order: Order | None = None  # in force when the trainer was asked to end; later orders can differ
        self._endpoint: str | None = None  # of several machines
        self._tidied = False
        self._limits = LimitWatch(claim.limits, time.monotonic(), claim.seconds_run)
        self._over: LimitExceeded | None = None  # the limit that the job exceeded
        self.lease = ClaimLease(claim, settings, lifecycle.heartbeat)

    def run(self) -> None:
        """Run the job to its end. Afterwards `lease.order` is the last order received.

        A failure of the worker's own steps is an outcome of the job; it does not end the worker.
        """
        with self.lease:
            try:
                self._run()
            except Exception as error:
                log.exception("job could not be run", job=str(self._claim.job_id))
                outcome = outcome_of_failure(error, self._settings.worker_name)
                self._until_recorded(lambda: bool(self.lease.contact(lambda: self._record(outcome))))

    def _run(self) -> None:
        attempt_folder.begin(self._run_dir, self._claim.checkpoints)
        trainer_process.write_config(self._claim, self._run_dir)
        self._log_start = self._log_file.stat().st_size if self._log_file.exists() else 0
        if not (trainer_process.bring_inputs(self._claim, self.lease) and self._meet()):
            self._stop_order = self.lease.order
            if self.lease.order is not Order.ABANDON:
                self._settle(-signal.SIGTERM, starved=False)
            return
        kills_before = out_of_memory_kills()
        process = self._start()
        try:
            self.lease.contact(self._note_start)
            self._watch(process)
        finally:
            children.kill_group(process)
            status = process.wait(REAP_SECONDS)
            (self._run_dir / SERVICES_FILE).unlink(missing_ok=True)  # it has secrets
        if self.lease.order is not Order.ABANDON:
            self._settle(status, out_of_memory_kills() > kills_before)
        job, order = str(self._claim.job_id), self.lease.order
        if order is not Order.ABANDON:  # the end was recorded: no later attempt needs the links
            attempt_folder.forget_kept(self._run_dir)
        log.info("job left", job=job, attempt=self._claim.attempt, order=order, status=status)

    def _meet(self) -> bool:
        """Meet the other machines of the job, if there are any. Return False if an order to end arrived meanwhile."""
        if self._claim.machines > 1:
            self._endpoint = meeting.lead(self._claim, self._settings, self.lease)
        return self._claim.machines == 1 or self._endpoint is not None

    def _start(self) -> children.Process:
        config = self._run_dir / CONFIG_FILE
        if self._claim.launched:
            return trainer_process.launch(self._claim, self._settings, config, self._log_file, self._endpoint)
        module, arguments = trainer_process.command_line(self._claim, self._settings, config)
        environment = child_environment(self._claim.gpus)
        return self._standby.start(module, arguments, log=self._log_file, env=environment)

    def _note_start(self) -> None:
        with session_scope() as session:
            lifecycle.start(session, self._claim)

    def _watch(self, process: children.Process) -> None:
        """Ship, renew the lease and check limits until the trainer has ended or the lease is lost."""
        more = False
        while not children.ended(process, 0 if more else SHIP_SECONDS):
            more = self.lease.contact(self._shipper.ship) or False
            self._keep_checkpoints()
            self._tidy_once()
            if self.lease.order is Order.ABANDON:
                return
            if not (more or self._over or self.lease.database_away):  # all reports so far have been read
                self._check_limits()
            if self.lease.order is not Order.CONTINUE or self._over:
                self._end_trainer(process)

    def _keep_checkpoints(self) -> None:
        """Update the links to the checkpoints just recorded, for a possible next attempt."""
        if self._shipper.checkpoints_reported and (known := self.lease.contact(self._known_checkpoints)):
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
        if self.lease.contact(self._forget_earlier):
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
                self.lease.note("warning", message)
            case LimitExceeded() as over:
                self._over = over

    def _gpu_readings(self) -> Sequence[GpuReading]:
        """Read the job's GPUs once per heartbeat, if the job has a limit on their utilisation."""
        if self._claim.limits.min_gpu_utilisation is None or time.monotonic() < self._next_reading:
            return ()
        self._next_reading = time.monotonic() + self._settings.heartbeat_seconds
        return gpus.read(self._claim.gpus)

    def _end_trainer(self, process: children.Process) -> None:
        """Ask the trainer to end; once its time is over, kill it."""
        if not self._stopping.asked:
            self._stop_order = self.lease.order
            if self._stop_order is not Order.END:
                children.ask(process)
            self._stopping.ask(self._stop_order, self._shipper.longest_step)
        else:
            if self.lease.order in (Order.CANCEL, Order.END) or self._over:
                self._stopping.hasten()
            if self._stopping.over():
                children.kill_group(process)

    def _settle(self, status: int, starved: bool) -> None:
        """Ship the rest of the reports and record the outcome."""

        def settled() -> bool | None:
            more = self.lease.contact(self._shipper.ship)
            self._tidy_once()
            if more:
                return None
            return more is False and bool(self.lease.contact(lambda: self._finish(status, starved)))

        self._until_recorded(settled)

    def _until_recorded(self, record: Callable[[], bool | None]) -> None:
        """Repeat an action until it succeeds, the lease is lost, or SETTLE_SECONDS have passed with the database there.
        None: repeat it at once."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while self.lease.order is not Order.ABANDON and time.monotonic() < deadline:
            done = record()
            if done:
                return
            if done is False:
                time.sleep(RETRY_SECONDS)
            if self.lease.database_away:
                deadline = time.monotonic() + SETTLE_SECONDS

    def _finish(self, status: int, starved: bool) -> bool:
        """Record the outcome. Before a failure of one of several machines, wait until the others have ended: if one of
        them is lost, the job is not failed, and the sweep takes it."""
        outcome = outcome_of(self._end(status, starved))
        with session_scope() as session:
            if self._claim.machines > 1 and outcome.status is JobStatus.FAILED and not self._over:
                if not lifecycle.end_all(session, self._claim):
                    return False
                outcome = self._cause(session, outcome)
            lifecycle.finish(session, self._claim, outcome)
        return True

    def _record(self, outcome: Outcome) -> bool:
        with session_scope() as session:
            lifecycle.finish(session, self._claim, outcome)
        return True

    def _end(self, status: int, starved: bool) -> End:
        return End(
            status=status,
            starved=starved,
            order=self.lease.order,
            stop_order=self._stop_order,
            asked=self._stopping.asked,
            by_launcher=self._claim.launched,
            over=self._over,
            finish=self._shipper.finish,
            error=self._shipper.error,
            run_dir=self._run_dir,
            log_start=self._log_start,
        )

    def _cause(self, session: Session, outcome: Outcome) -> Outcome:
        """Return the failure of another machine if it is the cause of this one: the trainer here lost its peers."""
        failed = lifecycle.first_failure(session, self._claim)
        if failed is None or outcome.reason is not Reason.CRASHED:
            return outcome
        worker, reason, message = failed
        if self._shipper.error and reason is Reason.CRASHED:  # any process reports its error, the first one first
            return outcome
        text = f"On {worker}: {message}"
        if reason is Reason.STORAGE_AWAY:  # it can pass
            return Outcome(JobStatus.QUEUED, reason, text)
        return Outcome(JobStatus.FAILED, reason, text)
