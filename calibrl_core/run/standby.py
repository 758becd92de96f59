"""A trainer's process before it has a job: it imports, which takes seconds, and waits.

    python -m calibrl_core.run.standby calibrl_core.preload

imports that module, says `ready` on stdout, and waits for one line of JSON on stdin:

    {"module": "calibrl_core.train", "arguments": ["/DIR/config.json", "--run-dir", "/DIR"], "log": "/DIR/log.txt",
     "environment": {"CUDA_VISIBLE_DEVICES": "0"}, "directory": "/DIR"}

Then it sets those variables, appends stdout and stderr to that file, goes to that folder (by which people and programs
can tell whose trainer it is: its command line says nothing of the job), and becomes `python -m module arguments...`: it
calls the module's `main()`. The end of stdin without a line ends it. What is set must not have been read by an import:
the GPUs that a process sees are only looked at when CUDA starts, which no import does. Nothing but Python is used here.
"""

import importlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any


def main(preload: str) -> None:
    with suppress(Exception):  # the job that needs what is missing says so, in its log
        importlib.import_module(preload)
    print("ready", flush=True)  # noqa: T201
    if line := sys.stdin.readline():
        become(json.loads(line))


def become(job: dict[str, Any]) -> None:
    """Be this job's trainer from here on, as if it had been started for it."""
    os.environ.update(job["environment"])
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)
    os.chdir(job["directory"])
    module = importlib.import_module(job["module"])
    sys.argv = [str(Path(module.__file__ or job["module"])), *job["arguments"]]
    module.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
