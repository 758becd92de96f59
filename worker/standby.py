"""Quick starts: a slot starts its next trainer before a job arrives, so that the imports are done by then."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from calibrl.processes import children
from calibrl.processes.children import Process
from jobs.settings import Settings
from worker import gpus

MODULE = "calibrl_core.run.standby"
LATE = frozenset(gpus.visible([]))  # variables that still take effect after the imports


class Standby:
    """The waiting trainer of one slot. Every trainer is started through this class, also if none waits.

    Args:
        environment: the environment of a job's trainer, without the variables of its GPUs.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._environment = dict(environment)
        self._waiting: Process | None = None

    def prepare(self) -> None:
        """Start a waiting trainer if there is none. Call it while the slot has no job: imports slow a job down.

        The process ends with the thread that calls this method.
        """
        if not self._settings.quick_starts or (self._waiting and not children.ended(self._waiting)):
            return
        self.close()
        command = [sys.executable, "-m", MODULE, f"{self._settings.trainer}.preload"]
        with suppress(OSError):  # no process or disk space available: the next job starts without it
            self._settings.data_dir.mkdir(parents=True, exist_ok=True)
            log = self._settings.data_dir / "standby.log"
            self._waiting = children.start(command, log=log, env=self._environment, stdin=subprocess.PIPE)

    def start(self, module: str, arguments: Sequence[str], *, log: Path, env: Mapping[str, str]) -> Process:
        """Start `python -m module arguments...` in the waiting trainer, even if it is still importing.

        Start a new process if none waits, or if `env` differs in more than the GPUs: imports read other variables.
        """
        if self._waiting and _early(env) == _early(self._environment):
            late = {name: env[name] for name in LATE if name in env}
            job = {"module": module, "arguments": list(arguments), "log": str(log), "environment": late}
            job["directory"] = str(log.parent)
            if _send(self._waiting, json.dumps(job)):
                process, self._waiting = self._waiting, None
                return process
        return children.start([sys.executable, "-m", module, *arguments], log=log, env=env)

    def close(self) -> None:
        """End the waiting trainer, if any."""
        if self._waiting:
            assert self._waiting.stdin is not None
            with suppress(OSError):
                self._waiting.stdin.close()
            children.stop(self._waiting, 0)
            self._waiting = None


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in LATE}


def _send(process: Process, line: str) -> bool:
    """Send the process its line; return False if it has ended."""
    assert process.stdin is not None
    if children.ended(process):
        return False
    try:
        process.stdin.write(line.encode() + b"\n")
        process.stdin.close()
    except BrokenPipeError:
        return False
    return True
