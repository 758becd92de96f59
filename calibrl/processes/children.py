"""Child processes that can't be left behind: each leads its own group, and dies when its starter does."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

SECRETS = ("DATABASE_URL", "REDIS_URL", "CALIBRL_", "AWS_")  # how the names of variables with the service's own begin
LAUNCHER = Path(__file__).with_name("launch.py")
REAP_SECONDS = 30.0  # a killed process that still hasn't ended is stuck in the kernel

Process = subprocess.Popen[bytes]


def environment_without_secrets() -> dict[str, str]:
    """This process's environment, for a child that runs what users sent, or a model made."""
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

    It gets `death_signal` when the *thread* that calls this ends: call from one that lives as long as the child should.
    `user`: see `calibrl.processes.launch`. A command that can't be run ends at once with its reason in the log.
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
    """Whether the process has ended, after at most `timeout` seconds. Doesn't reap: its group id stays its own."""
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
    """Send a signal to the process alone: it knows best what to do with those that it has started."""
    if not ended(process):
        process.send_signal(number)


def kill_group(process: Process) -> None:
    """Kill the process, if it still runs, and all that is left of its group. Nothing once it has been reaped."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def stop(process: Process, grace: float, first: signal.Signals = signal.SIGTERM) -> int:
    """End a process: `first` to it alone, KILL to its whole group once it has ended, or after `grace` seconds.

    Returns the exit status. Raises subprocess.TimeoutExpired if the kernel doesn't let go of it.
    """
    ask(process, first)
    ended(process, grace)
    kill_group(process)
    return process.wait(REAP_SECONDS)
