"""A vLLM server as a child process of the trainer.

Several processes of a run can ask one server, and each can start it again if it fails: a lock excludes the others
meanwhile. Each start has a socket of its own, so a process asks a new start only after it has learned of it under the
lock.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

START_SECONDS = 900.0  # a server on a GPU compiles the model first
CALL_SECONDS = 300.0  # limit of a call that does not sample, such as the loading of weights
STOP_SECONDS = 10.0  # from SIGTERM to SIGKILL
LOG_CHARACTERS = 2000  # of the log's end, in an error
LACKS_ADAPTERS = re.compile(r"not support(ed)? LoRA|LoRA (does|is) not support")  # in the log of an end at the start
PATH_CHARACTERS = 100  # of a socket file; the kernel permits 107

# Variables of torch's launchers, by which vLLM would join the trainer's processes.
LAUNCHER = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE")
LAUNCHER_PREFIXES = ("LOCAL_", "ROLE_", "TORCHELASTIC_")


class ServerError(RuntimeError):
    """A server does not start or does not answer."""


class AdapterError(ServerError):
    """A server cannot apply the policy's adapters. With merged weights it can serve the model."""


class RefusedError(ValueError):
    """A server refused a request as wrong."""


class VLLMServer:
    """One server. It listens on a socket file in a folder that only this user can open: vLLM's calls for new weights
    have no other protection.
    """

    def __init__(self, folder: Path, number: int, arguments: Sequence[str], environment: dict[str, str]) -> None:
        """Prepare the server; each process that asks it does so.

        Args:
            folder: its files; of mode 700.
            number: of the server among those in the folder.
            arguments: options of vLLM's server.
            environment: variables that the server gets beside those of this process.

        Raises:
            ServerError: the name of the folder for temporary files is too long.
        """
        self._files = str(folder / f"server-{number}")  # how their names begin
        self.starts = 0  # of the server, by any process, as far as this process knows
        if len(str(self.socket)) > PATH_CHARACTERS:
            raise ServerError(f"{folder} is too long for a socket file; set TMPDIR to a folder with a shorter name")
        self._arguments = arguments
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in LAUNCHER and not name.startswith(LAUNCHER_PREFIXES)
        }
        self._environment = {**inherited, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
        self._process: subprocess.Popen[bytes] | None = None  # if this process started it

    @property
    def socket(self) -> Path:
        """Return the socket file of the last start that this process knows."""
        return Path(f"{self._files}-{self.starts:02d}.sock")

    @property
    def _log(self) -> Path:
        return Path(f"{self._files}.log")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Exclude all other processes: one at a time replaces the server. A process that ends releases the lock."""
        with Path(f"{self._files}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def renewed(self) -> bool:
        """Return if another process has started the server again, and ask that start from now on. Call it within
        `locked`.
        """
        before, self.starts = self.starts, len(self._processes())
        return self.starts > before

    def _processes(self) -> list[int]:
        """Return the id of the process of each start."""
        file = Path(f"{self._files}.starts")
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def launch(self) -> None:
        """Start the process of the server. Call it in the main thread: the kernel ends the server when the thread that
        started it ends.

        Raises:
            ServerError: vLLM is not installed.
        """
        if find_spec("vllm") is None:
            raise ServerError("vLLM is not installed: pip install 'calibrl[vllm]', or use shared_prefill")
        self.starts += 1
        program = [sys.executable, "-m", "calibrl_core.rollout.vllm_program"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*program, "--uds", str(self.socket), *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        with Path(f"{self._files}.starts").open("a") as file:
            file.write(f"{self._process.pid}\n")

    def await_start(self) -> None:
        """Wait until the server that this process launched answers.

        Raises:
            AdapterError: it ended because vLLM has no adapters for this model.
            ServerError: it does not start; the message has the end of its log.
        """
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while not self._healthy():
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.2)
                lacks = LACKS_ADAPTERS.search(self._log.read_text(errors="replace"))
                kind = AdapterError if lacks else ServerError
                raise kind(f"vLLM's server ended at its start: {self.log_end()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServerError(f"vLLM's server did not start in {START_SECONDS:.0f} s: {self.log_end()}")

    def _healthy(self) -> bool:
        try:
            self.call("GET", "/health", seconds=5)
        except ServerError:
            return False
        return True

    def call(self, method: str, path: str, body: Any = None, seconds: float | None = CALL_SECONDS, **query: str) -> Any:
        """Return the answer to a call, decoded; None if it is not JSON. `seconds`: limit; None: no limit.

        Raises:
            ServerError: there is no answer in time, or the server failed.
            RefusedError: the server refuses the call.
        """
        transport = httpx.HTTPTransport(uds=str(self.socket))  # no connection is kept: after an error vLLM closes it
        try:
            with httpx.Client(transport=transport, base_url="http://vllm", timeout=seconds) as client:
                answer = client.request(method, path, json=body, params=query)
        except httpx.TransportError as error:
            raise ServerError(f"vLLM's server does not answer {path}: {type(error).__name__} {error}") from error
        if answer.status_code >= 500:
            raise ServerError(f"vLLM's server failed at {path}: {answer.text[:500]}")
        if answer.status_code >= 400:
            raise RefusedError(f"vLLM's server refuses {path}: {answer.text[:500]}")
        return answer.json() if "json" in answer.headers.get("content-type", "") else None

    def log_end(self) -> str:
        """Return the last lines of the server's log."""
        return self._log.read_text(errors="replace")[-LOG_CHARACTERS:]

    def kill(self) -> None:
        """End the server and all its processes at once, whichever process started it. Calls that wait for an answer
        fail.
        """
        for process in self._processes()[-1:]:
            with suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)
            deadline = time.monotonic() + STOP_SECONDS
            while self._runs(process) and time.monotonic() < deadline:
                time.sleep(0.05)

    def _runs(self, process: int) -> bool:
        if self._process is not None and self._process.pid == process:
            return self._process.poll() is None
        try:
            return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def close(self) -> None:
        """End the server and all its processes, if this process started it last."""
        if self._process is None or self._process.pid not in self._processes()[-1:]:
            return
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self.kill()
