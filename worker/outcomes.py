"""The outcome of a run, from what its trainer reported and how it ended."""

import signal
from dataclasses import dataclass
from errno import EDQUOT, EHOSTDOWN, EHOSTUNREACH, EIO, ENOSPC, ENOTCONN, ESTALE, ETIMEDOUT
from pathlib import Path

from calibrl.schemas import JobStatus, Reason
from calibrl_core.report import DISK_FULL_STATUS
from jobs.errors import StorageAway
from jobs.files.hub import HubUnavailable
from jobs.lifecycle import Order, Outcome
from worker.attempt_folder import CheckpointsMissing
from worker.events import ErrorLine, FinishLine
from worker.limits import LimitExceeded
from worker.shipper import LOG_FILE
from worker.trainer_process import describe_exit, log_tail

FULL = (ENOSPC, EDQUOT)
PASSING = (EIO, ESTALE, ETIMEDOUT, ENOTCONN, EHOSTDOWN, EHOSTUNREACH)  # of network file systems that are away


@dataclass(frozen=True)
class End:
    """The end of a trainer.

    Attributes:
        status: exit status, negative for a signal.
        starved: the kernel killed a process for lack of memory.
        order: last order of the heartbeat.
        stop_order: order in force when the trainer was asked to end; later orders can differ.
        asked: the trainer was asked to end.
        by_launcher: a launcher started the trainers.
        over: limit that the job exceeded.
        finish, error: the trainer's own reports.
        run_dir: folder of the attempt.
        log_start: bytes of the log before the run.
    """

    status: int
    starved: bool
    order: Order
    stop_order: Order | None
    asked: bool
    by_launcher: bool
    over: LimitExceeded | None
    finish: FinishLine | None
    error: ErrorLine | None
    run_dir: Path
    log_start: int

    @property
    def tail(self) -> str:
        return log_tail(self.run_dir / LOG_FILE, self.log_start)


def outcome_of(end: End) -> Outcome:
    """Return the outcome of a run; the first row that applies decides.

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
    # A launcher that was asked to end exits with a failure, even if its trainers stopped well.
    finish = end.finish if end.status == 0 or end.asked else None
    if end.order is Order.CANCEL:
        return Outcome(JobStatus.CANCELLED, Reason.USER)
    if finish and finish.status == "succeeded":
        return Outcome(JobStatus.SUCCEEDED, result=finish.result)
    if finish and finish.reason:  # a health rule: a person must decide
        return Outcome(JobStatus.PAUSED, finish.reason, finish.message, finish.result)
    if end.over:
        return Outcome(JobStatus.FAILED, end.over.reason, end.over.message)
    if error := end.error:
        tail = end.tail if error.reason is Reason.CRASHED else ""
        return Outcome(JobStatus.FAILED, error.reason, error.message + tail)
    if end.status == DISK_FULL_STATUS:
        return Outcome(JobStatus.FAILED, Reason.DISK_FULL, f"the disk of {end.run_dir} is full")
    by_signal = end.by_launcher or -end.status in (signal.SIGTERM, signal.SIGKILL)
    if finish or (end.stop_order in (Order.STOP, Order.PAUSE) and by_signal):
        if end.stop_order is Order.PAUSE:
            return Outcome(JobStatus.PAUSED, Reason.USER)
        return Outcome(JobStatus.QUEUED, Reason.WORKER_STOPPED)
    reason = Reason.OUT_OF_MEMORY if end.starved and -end.status == signal.SIGKILL else Reason.CRASHED
    return Outcome(JobStatus.FAILED, reason, describe_exit(end.status) + end.tail)


def outcome_of_failure(error: Exception, worker: str) -> Outcome:
    """Return the outcome of a run after a failure of the worker's own steps, such as writing the folder.

    A job whose checkpoints are missing is paused: a start at step 0 would lose them and the curves. A fault that can
    pass, such as storage that is away, puts the job back in the queue.
    """
    if isinstance(error, CheckpointsMissing):
        return Outcome(JobStatus.PAUSED, message=str(error))
    message = f"worker {worker} could not run it: {type(error).__name__}: {error}"
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, StorageAway | HubUnavailable) or number in PASSING:
        return Outcome(JobStatus.QUEUED, Reason.STORAGE_AWAY, message)
    return Outcome(JobStatus.FAILED, Reason.DISK_FULL if number in FULL else Reason.CRASHED, message)
