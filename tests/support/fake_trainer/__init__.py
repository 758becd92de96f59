"""A trainer without torch that speaks the real one's protocol, for tests of everything around it.

Of several processes, only the first one does more than wait for its end.

A step lasts `prompts_per_step` milliseconds; `seed` chooses how the run behaves. Each step also makes a new number
of the last one's, which checkpoints carry: `state/carried`, from `model.seed` on. A test can hold a run (`run.hold`).
"""

from enum import IntEnum


class Behaviour(IntEnum):
    """Values of `seed`. What goes wrong does so halfway through the steps."""

    NORMAL = 0
    CRASH = 1  # an exception, exit status 1
    ERROR = 2  # an `error` event that says why, exit status 1
    STUBBORN = 3  # ignores TERM and hangs, as does a process that it started
    KILLED = 4  # KILL by its own hand
    BAD_LINES = 5  # event lines that are no events, and text that Postgres refuses
    STRAGGLER = 6  # ends well, and leaves a process behind
    CAUGHT = 7  # an `error` event that only says that it crashed, exit status 1
    UNHEALTHY = 8  # a health rule fires that ends the run
    PEER_CRASH = 9  # of several processes, those but the first end with an exception after the first step
