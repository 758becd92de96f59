"""The cells that the suite must cover: every fault against a job in every state."""

from enum import StrEnum


class State(StrEnum):
    """State of a job at the moment of the fault."""

    QUEUED = "queued"
    WAITING = "waiting"
    BEFORE = "before 1st checkpoint"
    AFTER = "after checkpoint"
    SAVING = "saving"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    FINISHING = "finishing"


HELD = (State.BEFORE, State.AFTER, State.SAVING, State.PAUSING, State.CANCELLING, State.FINISHING)
IDLE = (State.QUEUED, State.WAITING, State.PAUSED)

_NO_PROCESS = "the job has no process to hit"
_NO_MACHINE = "no machine holds the job: the fault can't reach it"
_NO_DISK = "the job writes nothing yet; its later writes belong to the cell of the queued job"

REASONS: dict[str, dict[State, str]] = {
    "trainer killed": dict.fromkeys(IDLE, _NO_PROCESS),
    "supervisor killed": dict.fromkeys(IDLE, _NO_PROCESS),
    "supervisor frozen": dict.fromkeys(IDLE, _NO_PROCESS),
    "worker killed": dict.fromkeys(IDLE, _NO_MACHINE),
    "worker frozen": dict.fromkeys(IDLE, _NO_MACHINE),
    "worker cut off": dict.fromkeys(IDLE, _NO_MACHINE),
    "clock jumps": dict.fromkeys(IDLE, _NO_MACHINE),
    "disk full": {State.WAITING: _NO_DISK, State.PAUSED: _NO_DISK},
}
"""Cells that make no sense, by the fault's name."""


def applies(fault: str, state: State) -> bool:
    """Return True if the fault can affect a job in this state."""
    return state not in REASONS.get(fault, {})


def cells(faults: list[str]) -> list[tuple[str, State]]:
    """Return every cell that makes sense."""
    return [(fault, state) for fault in faults for state in State if applies(fault, state)]
