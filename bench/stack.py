"""The whole service in a process of its own, with the settings that a benchmark wants: `python -m bench.stack DATA`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from calibrl.client import Client
from calibrl.local import LocalStack

START_SECONDS, STOP_SECONDS = 60.0, 60.0
READY = "ready"


@contextmanager
def stack(data_dir: Path, settings: Mapping[str, str]) -> Iterator[Client]:
    """The service on this folder, without a dashboard, from ready to stopped; and a client of it."""
    environment = {**os.environ, **settings}
    command = [sys.executable, "-m", "bench.stack", str(data_dir)]
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


def _await_worker(client: Client) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not client.workers():
        if time.monotonic() > deadline:
            raise RuntimeError(f"no worker has come up within {START_SECONDS:.0f} s")
        time.sleep(0.1)


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(KeyboardInterrupt), LocalStack(Path(sys.argv[1]), dashboard=False) as running:
        print(READY, flush=True)  # noqa: T201
        while True:
            running.check()
            time.sleep(0.5)


if __name__ == "__main__":
    main()
