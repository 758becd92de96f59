"""A module that stops itself after it has reported a step: `python -m tests.support.stopping STEP MODULE ARGUMENTS`.

A test that must signal a run between two steps can then take its time: the run cannot finish before the signal.
"""

import os
import runpy
import signal
import sys
from typing import Any

from calibrl_core.report import EventFile


def stop_after(step: int) -> None:
    """Make this process stop itself (SIGSTOP) once it has written the metrics of `step`."""
    emit = EventFile.emit

    def emit_and_stop(self: EventFile, type: str, **fields: Any) -> None:
        emit(self, type, **fields)
        if type == "metrics" and fields["step"] == step:
            os.kill(os.getpid(), signal.SIGSTOP)

    EventFile.emit = emit_and_stop  # type: ignore[method-assign]


if __name__ == "__main__":
    stop_after(int(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
