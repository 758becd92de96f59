"""A process that `accelerate launch` or `torchrun` started ends with its launcher, however that ends.

The launcher gives each process a session of its own. Whoever kills the launcher, or its group, would leave them behind:
to train on by themselves, beside those that take over the job.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
SELF = Path("/proc/self")


def end_with_launcher() -> None:
    """Have the kernel kill this process once its launcher ends; exit if it has ended already. Nothing where there is
    none. Whatever takes long, such as an import of torch, belongs behind this."""
    if not _launched(SELF):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    parent = Path(f"/proc/{os.getppid()}")
    # The launcher runs the same Python; what it may have put in between, such as a profiler, has its mark. What takes
    # in orphans is neither.
    if not (_same_program(parent) or _launched(parent)):
        sys.exit("the launcher that started this process is gone")


def _launched(process: Path) -> bool:
    """Whether its environment has the mark of torch's launchers."""
    try:
        return b"TORCHELASTIC_RUN_ID=" in (process / "environ").read_bytes()
    except OSError:  # not there any more, or someone else's
        return False


def _same_program(process: Path) -> bool:
    try:
        return (process / "exe").samefile(SELF / "exe")
    except OSError:
        return False
