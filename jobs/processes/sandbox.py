"""Runs a module in a restricted process: without secrets, with limits of memory and time.

python -m jobs.processes.sandbox BYTES_OF_MEMORY SECONDS MODULE ARGUMENTS...
"""

import resource
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path

from calibrl.processes import children

LOG_BYTES = 2_000


def command(module: str, *arguments: str, memory: int, seconds: int) -> list[str]:
    """Return the command that runs a module within limits: bytes of address space, and seconds of CPU time."""
    return [sys.executable, "-m", __name__, str(memory), str(seconds), module, *arguments]


def run(
    module: str,
    *arguments: str,
    log: Path,
    memory: int,
    seconds: int,
    variables: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> int | None:
    """Run a module to its end. Return its exit status, or None if it was killed with all its children after `seconds`.

    Args:
        log: file for its output. If the module fails, the end of this file is logged.
        memory: bytes of address space. Libraries reserve a part of it that they do not use.
        seconds: limit of wall time and of CPU time.
        variables: of the environment, in addition.
    """
    process = children.start(
        command(module, *arguments, memory=memory, seconds=seconds),
        log=log,
        env=children.environment_without_secrets() | dict(variables or {}),
        cwd=cwd,
    )
    in_time = False
    try:
        in_time = children.ended(process, seconds)
    finally:
        status = children.stop(process, 0)
    if not in_time or status != 0:
        import structlog  # here, because the restricted process imports this module too, and starts in half the time

        output = log.read_bytes()[-LOG_BYTES:].decode(errors="replace")
        structlog.get_logger().warning(
            "confined process failed", module=module, status=status, in_time=in_time, log=output
        )
    return status if in_time else None


def main() -> None:
    """Run the command of the module."""
    memory, seconds, module, *arguments = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
