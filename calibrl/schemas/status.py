"""Where a job stands, and why."""

from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job stands. `waiting`: for a job that it depends on. The last three are final: only a person's `retry`
    takes a job out of the last two."""

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
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)

    @property
    def held(self) -> bool:
        """Whether a worker holds it: it takes a slot."""
        return self in (JobStatus.RUNNING, JobStatus.PAUSING, JobStatus.CANCELLING)


class Reason(StrEnum):
    """Why a job's status changed, where there is a reason to tell."""

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
    WORKER_STOPPED = "worker_stopped"
    PREEMPTED = "preempted"
    DEPENDENCY_FAILED = "dependency_failed"
