"""Run as a script by `accelerate launch`: become one trainer of several, which dies with the launcher.

Each gets a session of its own, where whoever kills the launcher's group doesn't reach it. The trainer sees to that too
(`calibrl_core.distributed`), but only after seconds of imports.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])
