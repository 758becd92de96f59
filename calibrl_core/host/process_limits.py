"""Limits of processes, shared by the trainer and the service: time to end, and who can look into them."""

import ctypes

PR_SET_DUMPABLE = 4
REAP_SECONDS = 30.0  # a killed process that has not ended by then is stuck in the kernel


def keep_private() -> None:
    """Keep the environment and memory of this process, which have secrets, from other processes of its user, such as
    its children. A process of root can still read them."""
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
