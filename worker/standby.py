"""Quick starts: a slot's next trainer is started before there is a job for it, so that its imports are over by then."""

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
LATE = frozenset(gpus.visible([]))  # variables that a process which has imported everything can still be given


class Standby:
    """The waiting trainer of one slot. Every start goes through here, also where none waits.

    `environment`: what a job's trainer gets, but for its GPUs.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._environment = dict(environment)
        self._waiting: Process | None = None

    def prepare(self) -> None:
        """Have a trainer wait, unless one does. Call it while the slot has no job, which the imports would slow down.

        Like every child it dies with the thread that calls this.
        """
        if not self._settings.quick_starts or (self._waiting and not children.ended(self._waiting)):
            return
        self.close()
        command = [sys.executable, "-m", MODULE, f"{self._settings.trainer}.preload"]
        with suppress(OSError):  # no process or no disk left for it: the next job starts cold
            self._settings.data_dir.mkdir(parents=True, exist_ok=True)
            log = self._settings.data_dir / "standby.log"
            self._waiting = children.start(command, log=log, env=self._environment, stdin=subprocess.PIPE)

    def start(self, module: str, arguments: Sequence[str], *, log: Path, env: Mapping[str, str]) -> Process:
        """Start `python -m module arguments...`: the waiting trainer becomes it, even if it is still importing.

        A cold start where none waits, or where `env` differs in more than the GPUs: imports read other variables.
        """
        if self._waiting and _early(env) == _early(self._environment):
            late = {name: env[name] for name in LATE if name in env}
            job = {"module": module, "arguments": list(arguments), "log": str(log), "environment": late}
            job["directory"] = str(log.parent)
            if _tell(self._waiting, json.dumps(job)):
                process, self._waiting = self._waiting, None
                return process
        return children.start([sys.executable, "-m", module, *arguments], log=log, env=env)

    def close(self) -> None:
        """End the waiting trainer, if there is one."""
        if self._waiting:
            assert self._waiting.stdin is not None
            with suppress(OSError):
                self._waiting.stdin.close()
            children.stop(self._waiting, 0)
            self._waiting = None


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in LATE}


def _tell(process: Process, line: str) -> bool:
    """Give the process its line; False if it has ended."""
    assert process.stdin is not None
    if children.ended(process):
        return False
    try:
        process.stdin.write(line.encode() + b"\n")
        process.stdin.close()
    except BrokenPipeError:
        return False
    return True
