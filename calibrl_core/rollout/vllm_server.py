"""A vLLM server as a child process of the trainer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

START_SECONDS = 900.0  # a server on a GPU compiles the model first
CALL_SECONDS = 300.0  # limit of a call that does not sample, such as the loading of weights
STOP_SECONDS = 10.0  # from SIGTERM to SIGKILL
LOG_CHARACTERS = 2000  # of the log's end, in an error
PATH_CHARACTERS = 100  # of a socket file; the kernel permits 107

# Variables of torch's launchers, by which vLLM would join the trainer's processes.
LAUNCHER = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE")
LAUNCHER_PREFIXES = ("LOCAL_", "ROLE_", "TORCHELASTIC_")


class ServerError(RuntimeError):
    """A server does not start or does not answer."""


class RefusedError(ValueError):
    """A server refused a request as wrong."""


class VLLMServer:
    """One server. It listens on a socket file in a folder that only this user can open: vLLM's calls for new weights
    have no other protection.
    """

    def __init__(self, arguments: Sequence[str], environment: dict[str, str]) -> None:
        """Prepare the server.

        Args:
            arguments: options of vLLM's server.
            environment: variables that the server gets beside those of this process.

        Raises:
            ServerError: the name of the folder for temporary files is too long.
        """
        self._files = tempfile.TemporaryDirectory(prefix="calibrl-vllm-")  # mode 700
        folder = Path(self._files.name)
        self._socket, self._log = folder / "server.sock", folder / "server.log"
        if len(str(self._socket)) > PATH_CHARACTERS:
            raise ServerError(f"{folder} is too long for a socket file; set TMPDIR to a folder with a shorter name")
        program = [sys.executable, "-m", "calibrl_core.rollout.vllm_program"]
        self._command = [*program, "--uds", str(self._socket), *arguments]
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in LAUNCHER and not name.startswith(LAUNCHER_PREFIXES)
        }
        self._environment = {**inherited, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers. Call it in the main thread: the kernel ends the server when the
        thread that started it ends.

        Raises:
            ServerError: it does not start; the message has the end of its log.
        """
        self._socket.unlink(missing_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._healthy():
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.2)
                raise ServerError(f"vLLM's server ended at its start: {self.log_end()}")
            if time.monotonic() > deadline:
                self.stop()
                raise ServerError(f"vLLM's server did not start in {START_SECONDS:.0f} s: {self.log_end()}")

    def _healthy(self) -> bool:
        try:
            self.call("GET", "/health", seconds=5)
        except ServerError:
            return False
        return True

    def call(self, method: str, path: str, body: Any = None, seconds: float | None = CALL_SECONDS, **query: str) -> Any:
        """Return the answer to a call, decoded from JSON; None if it is empty. `seconds`: limit; None: no limit.

        Raises:
            ServerError: there is no answer in time, or the server failed.
            RefusedError: the server refuses the call.
        """
        transport = httpx.HTTPTransport(uds=str(self._socket))  # no connection is kept: after an error vLLM closes it
        try:
            with httpx.Client(transport=transport, base_url="http://vllm", timeout=seconds) as client:
                answer = client.request(method, path, json=body, params=query)
        except httpx.TransportError as error:
            raise ServerError(f"vLLM's server does not answer {path}: {type(error).__name__} {error}") from error
        if answer.status_code >= 500:
            raise ServerError(f"vLLM's server failed at {path}: {answer.text[:500]}")
        if answer.status_code >= 400:
            raise RefusedError(f"vLLM's server refuses {path}: {answer.text[:500]}")
        return answer.json() if answer.content else None

    def log_end(self) -> str:
        """Return the last lines of the server's log."""
        return self._log.read_text(errors="replace")[-LOG_CHARACTERS:]

    def stop(self) -> None:
        """End the server and all its processes."""
        if self._process is None:
            return
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the server and all its processes at once. Calls that wait for an answer fail."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """End the server and remove its files."""
        self.stop()
        self._files.cleanup()
