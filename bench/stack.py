"""The whole service in a separate process, with the settings of a benchmark, which can write to its database:
`python -m bench.stack DATA [--dashboard]`.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from calibrl.client import Client
from calibrl.processes import children
from calibrl.stack.local import LocalStack
from calibrl.stack.services import Postgres, Valkey

START_SECONDS, STOP_SECONDS = 60.0, 60.0
READY = "ready"


@contextmanager
def stack(data_dir: Path, settings: Mapping[str, str], *, dashboard: bool = False) -> Iterator[Client]:
    """Run the service on this folder until the block ends; yield a client when it is ready."""
    environment = {**os.environ, **settings}
    command = [sys.executable, "-m", "bench.stack", str(data_dir), *(["--dashboard"] if dashboard else [])]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != READY:
                raise RuntimeError(f"the stack did not start; its logs are in {data_dir / 'logs'}")
            with Client(data_dir=data_dir) as client:
                _await_worker(client)
                yield client
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(STOP_SECONDS)


@contextmanager
def services(folder: Path) -> Iterator[dict[str, str]]:
    """Run a database and a broker until the block ends.

    Yields the settings with which `stack` and child processes use them, with a new API key.
    """
    logs = folder / "logs"
    with (
        Postgres(folder / "postgres", logs / "postgres.log") as postgres,
        Valkey(folder / "valkey", logs / "valkey.log") as valkey,
    ):
        yield {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": valkey.url,
            "CALIBRL_API_KEY": "calibrl_" + secrets.token_urlsafe(32),
            "CALIBRL_DATA_DIR": str(folder / "data"),
        }


def run_with(settings: Mapping[str, str], module: str, arguments: Sequence[str]) -> int:
    """Run a module in a child process with these settings in its environment; return its exit status.

    The child process ends if this process ends.
    """
    tied = [sys.executable, "-I", "-S", str(children.LAUNCHER), str(os.getpid()), "15", "self"]
    command = [*tied, sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env={**os.environ, **settings}).returncode


def _await_worker(client: Client) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not client.workers():
        if time.monotonic() > deadline:
            raise RuntimeError(f"no worker has started within {START_SECONDS:.0f} s")
        time.sleep(0.1)


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(KeyboardInterrupt), LocalStack(Path(sys.argv[1]), dashboard="--dashboard" in sys.argv) as running:
        print(READY, flush=True)  # noqa: T201
        while True:
            running.check()
            time.sleep(0.5)


if __name__ == "__main__":
    main()
