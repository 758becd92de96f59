"""The life of a job: the only code that changes a status, and the lease that gives a job to one worker at a time.

`status`: table of transitions. `requests`: actions of users. `leases`: actions of workers. `dispatch`: which job starts
where. `sweeping`: periodic repair.
"""

from jobs.lifecycle.dispatch import queue_entries, queue_forecast, wake_for_free_slots
from jobs.lifecycle.leases import (
    Claim,
    KnownCheckpoint,
    LeaseLost,
    Order,
    Outcome,
    claim,
    fence,
    finish,
    heartbeat,
    start,
)
from jobs.lifecycle.requests import (
    cancel,
    check,
    edit,
    fork_spec,
    new_job,
    pause,
    resume,
    retry,
    submit,
)
from jobs.lifecycle.status import TRANSITIONS, IllegalTransition
from jobs.lifecycle.sweeping import Recovery, Swept, sweep

__all__ = [
    "TRANSITIONS",
    "Claim",
    "IllegalTransition",
    "KnownCheckpoint",
    "LeaseLost",
    "Order",
    "Outcome",
    "Recovery",
    "Swept",
    "cancel",
    "check",
    "claim",
    "edit",
    "fence",
    "finish",
    "fork_spec",
    "heartbeat",
    "new_job",
    "pause",
    "queue_entries",
    "queue_forecast",
    "resume",
    "retry",
    "start",
    "submit",
    "sweep",
    "wake_for_free_slots",
]
