"""Ends a process when its parent process ends. Uses the standard library only, so that the import is fast."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1


def end_with_parent(is_parent: Callable[[int], bool], message: str) -> None:
    """Make the kernel kill this process when its parent process ends.

    Args:
        is_parent: returns if the process with this id is the expected parent.
        message: text of the error if it is not.

    Raises:
        SystemExit: the parent has ended already.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if not is_parent(os.getppid()):  # checked after prctl, so that no end of the parent is missed
        sys.exit(message)


def is_same_program(process: int) -> bool:
    """Return if a process runs the same program as this one, such as the same Python."""
    try:
        return Path(f"/proc/{process}/exe").samefile("/proc/self/exe")
    except OSError:
        return False
