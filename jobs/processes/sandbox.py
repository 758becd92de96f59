"""Runs a module as a process of its own that may do little harm: no secrets, limits of memory and time.

python -m jobs.processes.sandbox BYTES_OF_MEMORY SECONDS MODULE ARGUMENTS...
"""

import resource
import runpy
import sys
from pathlib import Path

import structlog

from calibrl.processes import children

LOG_BYTES = 2_000

logger = structlog.get_logger()


def run(module: str, *arguments: str, log: Path, memory: int, seconds: int) -> int | None:
    """Run a module to its end; its exit status, or None where it took more than `seconds` and was killed, with all that
    it had started. `memory`: bytes of address space, of which libraries take a part that they don't use. What it says
    goes to `log`, whose end is told to ours where it failed."""
    command = [sys.executable, "-m", __name__, str(memory), str(seconds), module, *arguments]
    process = children.start(command, log=log, env=children.environment_without_secrets())
    in_time = False
    try:
        in_time = children.ended(process, seconds)
    finally:
        status = children.stop(process, 0)
    if not in_time or status != 0:
        said = log.read_bytes()[-LOG_BYTES:].decode(errors="replace")
        logger.warning("confined process failed", module=module, status=status, in_time=in_time, log=said)
    return status if in_time else None


def main() -> None:
    """The command: see the module."""
    memory, seconds, module, *arguments = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
