"""A worker machine: `celery -A worker.tasks worker` under a name; the harness restarts it like a service manager."""

import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from calibrl.processes import children
from calibrl.processes.children import Process
from calibrl.stack.local import CELERY_FLAGS
from calibrl_core.host.process_limits import REAP_SECONDS
from tests.chaos import pids
from tests.chaos.network import Namespace
from tests.support import ROOT
from tests.support.waiting import eventually

STOP_SECONDS = 30.0
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


class Machine:
    """`cable`: it is at the other end of that; None: nothing can be cut."""

    def __init__(self, name: str, log: Path, environment: Mapping[str, str], cable: Namespace | None) -> None:
        self.name, self.cable = name, cable
        self._log = log
        self._environment = {**environment, "CALIBRL_WORKER_NAME": name}
        self._clock = log.with_suffix(".clock")
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """Return the id of the worker's main process."""
        assert self._process is not None
        return self._process.pid

    @property
    def slots(self) -> list[int]:
        """Return the ids of the slots' processes."""
        return pids.children(self.pid)

    def start(self, **environment: str) -> None:
        """Start the worker; kill its old processes first."""
        self.kill()
        worker = ["-m", "celery", "-A", "worker.tasks", "worker", "-n", f"{self.name}@%h", *CELERY_FLAGS]
        everything = self._environment | environment
        command = [*(self.cable.command if self.cable else ()), sys.executable, *worker]
        self._process = children.start(command, log=self._log, env=everything, cwd=ROOT)

    def start_with_clock(self) -> None:
        """Start the worker with a wall clock that `set_clock` can change; the monotonic clock stays right."""
        assert FAKETIME is not None
        self.set_clock("+0")
        self.start(
            LD_PRELOAD=str(FAKETIME),
            PYTHONPATH=f"{Path(__file__).with_name('clock')}:{self._environment['PYTHONPATH']}",
            FAKETIME_TIMESTAMP_FILE=str(self._clock),
            FAKETIME_CACHE_DURATION="1",
            FAKETIME_DONT_FAKE_MONOTONIC="1",
            FAKETIME_DONT_RESET="1",
        )

    def set_clock(self, offset: str) -> None:
        """Set the offset of the machine's clock: `+1h`, `-1h`, `+0`."""
        partial = self._clock.with_suffix(".partial")
        partial.write_text(offset)
        partial.replace(self._clock)

    def kill(self) -> None:
        """Kill the main process; the kernel then ends its slots."""
        if self._process:
            self._process.kill()
            self._process.wait(REAP_SECONDS)
            self._process = None

    def stop(self) -> None:
        """Stop the worker and wait for its end."""
        if self._process:
            self.thaw()
            children.stop(self._process, STOP_SECONDS)
            self._process = None

    def thaw(self) -> None:
        """Let all processes of the worker continue (SIGCONT)."""
        if self._process:
            pids.send([self.pid, *self.slots], signal.SIGCONT)

    def alive(self) -> bool:
        """Return True if the main process runs."""
        return self._process is not None and not children.ended(self._process)

    def await_slots(self, count: int) -> None:
        """Wait until this number of slot processes exists."""
        eventually(lambda: len(self.slots) >= count)
