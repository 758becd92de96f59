"""Status of a job, and the reason for it."""

from enum import StrEnum


class JobStatus(StrEnum):
    """Status of a job. `waiting`: the jobs that it depends on have not succeeded yet. `succeeded`, `failed` and
    `cancelled` are final; only `retry` takes a job out of the last two."""

    QUEUED = "queued"
    WAITING = "waiting"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """True if the job has ended."""
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)

    @classmethod
    def final_ones(cls) -> tuple["JobStatus", ...]:
        """Return the statuses of ended jobs."""
        return tuple(status for status in cls if status.final)

    @classmethod
    def broken_ones(cls) -> tuple["JobStatus", ...]:
        """Return the statuses of jobs that ended without success."""
        return (JobStatus.FAILED, JobStatus.CANCELLED)

    @classmethod
    def held_ones(cls) -> tuple["JobStatus", ...]:
        """Return the statuses of jobs that a worker holds."""
        return tuple(status for status in cls if status.held)

    @property
    def held(self) -> bool:
        """True if a worker holds the job, so that it occupies a slot."""
        return self in (JobStatus.RUNNING, JobStatus.PAUSING, JobStatus.CANCELLING)


class Reason(StrEnum):
    """Reason for the last change of a job's status, if there is one."""

    USER = "user"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out_of_memory"
    NON_FINITE = "non_finite"
    BAD_SPEC = "bad_spec"
    HEALTH = "health"
    DISK_FULL = "disk_full"
    QUOTA = "quota"
    TIMED_OUT = "timed_out"
    NO_PROGRESS = "no_progress"
    IDLE_GPU = "idle_gpu"
    LOST_WORKER = "lost_worker"
    STORAGE_AWAY = "storage_away"
    WORKER_STOPPED = "worker_stopped"
    PREEMPTED = "preempted"
    DEPENDENCY_FAILED = "dependency_failed"
