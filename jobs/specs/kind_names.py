"""Kinds of jobs in messages."""

from calibrl.schemas import JobKind

KIND_NAMES: dict[JobKind, str] = {
    "train": "a training job",
    "evaluate": "an evaluation",
    "audit": "an audit",
    "what_if": "a what-if",
    "bisect": "a bisection",
}
