"""The life of a job: the only code that changes a status, and the lease that gives a job to one worker at a time.

`status`: table of transitions. `requests`: actions of users. `leases`: actions of workers. `parts`: those of the
workers of a job on several machines. `dispatch`: which job starts where. `sweeping`: periodic repair.
"""

from jobs.lifecycle.bisections import bisection_spec
from jobs.lifecycle.dispatch import plan_after_commit, queue_entries, queue_forecast
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
from jobs.lifecycle.parts import (
    all_ready,
    end_all,
    end_part,
    endpoint,
    first_failure,
    meet_at,
    part_heartbeat,
    part_ready,
    take_part,
)
from jobs.lifecycle.requests import (
    cancel,
    check,
    edit,
    fork_spec,
    new_job,
    pause,
    remove,
    repeated_spec,
    resume,
    retry,
    submit,
)
from jobs.lifecycle.status import TRANSITIONS, IllegalTransition
from jobs.lifecycle.sweeping import Recovery, Swept, sweep
from jobs.lifecycle.what_ifs import what_if_spec

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
    "all_ready",
    "bisection_spec",
    "cancel",
    "check",
    "claim",
    "edit",
    "end_all",
    "end_part",
    "endpoint",
    "fence",
    "finish",
    "first_failure",
    "fork_spec",
    "heartbeat",
    "meet_at",
    "new_job",
    "part_heartbeat",
    "part_ready",
    "pause",
    "plan_after_commit",
    "queue_entries",
    "queue_forecast",
    "remove",
    "repeated_spec",
    "resume",
    "retry",
    "start",
    "submit",
    "sweep",
    "take_part",
    "what_if_spec",
]
