"""Child processes that end with their parent. Each child leads its own process group."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from calibrl_core.host.process_limits import REAP_SECONDS

SECRETS = ("DATABASE_URL", "REDIS_URL", "CALIBRL_", "AWS_")  # prefixes of variables with secrets of the service
LAUNCHER = Path(__file__).with_name("launch.py")

Process = subprocess.Popen[bytes]


def environment_without_secrets() -> dict[str, str]:
    """Return the environment without secrets, for a child that runs code of users or output of models."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SECRETS)}


def start(
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
    user: str = "self",
    stdin: int = subprocess.DEVNULL,
) -> Process:
    """Start a command in its own session, its output appended to `log` and its input empty (or a pipe, as Popen's).

    The child gets `death_signal` when the calling *thread* ends: call from a thread that lives as long as the child.
    `user`: see `calibrl.processes.launch`. A command that cannot run ends at once with its reason in the log.
    """
    launch = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(int(death_signal)), user]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*launch, *map(str, command)],
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=env,
            cwd=cwd,
        )


def ended(process: Process, timeout: float = 0) -> bool:
    """Return whether the process has ended, after at most `timeout` seconds. Does not reap it."""
    if process.returncode is not None:
        return True
    watch = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(watch, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(watch)


def ask(process: Process, number: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal to the process only, which handles its own children."""
    if not ended(process):
        process.send_signal(number)


def kill_group(process: Process) -> None:
    """Kill the process and its group. Does nothing after it has been reaped."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def stop(process: Process, grace: float, first: signal.Signals = signal.SIGTERM) -> int:
    """End a process: send `first` to it, then KILL to its group when it has ended or after `grace` seconds.

    Returns the exit status.

    Raises:
        subprocess.TimeoutExpired: the kernel does not end the process.
    """
    ask(process, first)
    ended(process, grace)
    kill_group(process)
    return process.wait(REAP_SECONDS)
