"""A trainer process without a job: it does its imports, which take seconds, and waits.

    python -m calibrl_core.run.standby calibrl_core.preload

imports that module, prints `ready` to stdout, and waits for one line of JSON on stdin:

    {"module": "calibrl_core.train", "arguments": ["/DIR/config.json", "--run-dir", "/DIR"], "log": "/DIR/log.txt",
     "environment": {"CUDA_VISIBLE_DEVICES": "0"}, "directory": "/DIR"}

Then it sets these variables, redirects stdout and stderr to the log, changes to the directory, and runs `python -m
module arguments...` by calling the module's `main()`. People and programs can tell from the directory whose trainer it
is: the command line does not name the job. The process ends if stdin ends without a line. Imports must not read the
variables before they are set: CUDA looks up a process's GPUs only when it starts, which no import does. This module
uses the standard library only.
"""

import importlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any


def main(preload: str) -> None:
    """Import the module `preload`, wait for a job on stdin, and run it."""
    with suppress(Exception):  # a job that needs the failed import reports the error in its own log
        importlib.import_module(preload)
    print("ready", flush=True)  # noqa: T201
    if line := sys.stdin.readline():
        run_job(json.loads(line))


def run_job(job: dict[str, Any]) -> None:
    """Run this job from now on, as if this process had been started for it."""
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
