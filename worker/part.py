"""Runs the part of a job on several machines that is this machine's, except for the main machine (`supervisor.py`).

Its trainer writes into the folder of the attempt only what any process does: an error. Its own files, config and log,
are in a folder of their own there. It ends after the trainer of the main machine, or with the lease.
"""

import time

import structlog

from calibrl.processes import children
from calibrl.schemas import Reason
from calibrl_core.host.process_limits import REAP_SECONDS
from jobs import lifecycle
from jobs.db import session_scope
from jobs.lifecycle import Claim, Order
from jobs.settings import Settings
from worker import meeting, trainer_process
from worker.claim_lease import RETRY_SECONDS, ClaimLease
from worker.outcomes import outcome_of_failure
from worker.shipper import LOG_FILE
from worker.trainer_process import (
    CONFIG_FILE,
    END_SECONDS,
    SERVICES_FILE,
    describe_exit,
    log_tail,
    out_of_memory_kills,
)

WATCH_SECONDS = 0.5
REPORT_SECONDS = 600.0  # retry period for the report while the database is unreachable

log = structlog.get_logger()

Failure = tuple[Reason, str]


class JobPart:
    """The run of one claim with a rank above 0. Used once."""

    def __init__(self, claim: Claim, settings: Settings) -> None:
        self._claim = claim
        self._settings = settings
        self._lease = ClaimLease(claim, settings, lifecycle.part_heartbeat)
        self._run_dir = settings.run_dir(claim.job_id, claim.attempt)
        self._folder = self._run_dir / f"machine-{claim.rank}"
        self._log_file = self._folder / LOG_FILE

    def run(self) -> None:
        """Run the part to its end and report it. A failure of the worker's own steps fails the part, not the worker."""
        with self._lease:
            self._run_and_report()
        log.info("part of a job left", job=str(self._claim.job_id), rank=self._claim.rank, order=self._lease.order)

    def _run_and_report(self) -> None:
        try:
            failure = self._run()
        except Exception as error:
            log.exception("part of a job could not be run", job=str(self._claim.job_id))
            outcome = outcome_of_failure(error, self._settings.worker_name)
            failure = outcome.reason or Reason.CRASHED, outcome.message or ""
        self._report(failure)

    def _run(self) -> Failure | None:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = trainer_process.write_config(self._claim, self._folder)
        if not trainer_process.bring_inputs(self._claim, self._lease):
            return None
        endpoint = meeting.follow(self._claim, self._lease)
        if endpoint is None:
            return None
        if not (self._run_dir / CONFIG_FILE).exists():
            text = f"{self._run_dir} of the main machine is not here: share the data folder between the machines"
            return Reason.CRASHED, text
        kills_before = out_of_memory_kills()
        process = trainer_process.launch(self._claim, self._settings, config, self._log_file, endpoint)
        try:
            self._watch(process)
        finally:
            children.kill_group(process)
            status = process.wait(REAP_SECONDS)
            config.with_name(SERVICES_FILE).unlink(missing_ok=True)  # it has secrets
        if status == 0:
            return None
        if out_of_memory_kills() > kills_before:
            return Reason.OUT_OF_MEMORY, describe_exit(status) + log_tail(self._log_file)
        if self._lease.order is not Order.CONTINUE:  # it ended because another trainer had
            return None
        return Reason.CRASHED, describe_exit(status) + log_tail(self._log_file)

    def _watch(self, process: children.Process) -> None:
        """Renew the part until its trainer has ended, the lease is lost, or the time after an order to end is over."""
        end_at: float | None = None
        while not children.ended(process, WATCH_SECONDS):
            if self._lease.order in (Order.END, Order.STOP):  # STOP: the database was away for too long
                end_at = end_at or time.monotonic() + END_SECONDS
            if self._lease.order is Order.ABANDON or (end_at and time.monotonic() >= end_at):
                return

    def _report(self, failure: Failure | None) -> None:
        deadline = time.monotonic() + REPORT_SECONDS
        while self._lease.order is not Order.ABANDON and time.monotonic() < deadline:
            if self._lease.contact(lambda: self._end(failure)):
                return
            time.sleep(RETRY_SECONDS)

    def _end(self, failure: Failure | None) -> bool:
        with session_scope() as session:
            lifecycle.end_part(session, self._claim, failure)
        return True
