"""A sandbox for functions of users: bubblewrap, namespaces of its own, a filter of system calls, limits.

`sandbox_program` runs inside. This module starts it, sends it requests, and believes no more than a number from 0 to 1.
"""

import json
import os
import platform
import select
import shutil
import signal
import site
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Self

from pydantic import Field

from calibrl_core.host.process_limits import REAP_SECONDS
from calibrl_core.settings.base import StrictSettings
from calibrl_core.verifiers.grader_source import imported_names
from calibrl_core.verifiers.sandbox_filter import filter_program

PROGRAM = Path(__file__).with_name("sandbox_program.py")
INSIDE = "/program.py"  # the program, in the sandbox
PACKAGES = "/packages"  # packages that the administrator allows, in the sandbox
SCRATCH_BYTES = 64 * 2**20  # of files in /tmp, in memory
START_SECONDS = 60.0  # on a busy machine
STOP_SECONDS = 60.0  # beyond the time limit, for a machine with too few CPUs; the pool of workers kills long before
LONGEST_FRAME = 2**17  # bytes, of an answer
LONGEST_REASON = 500  # characters, of what bubblewrap or the program printed
NOBODY = "65534"
PackageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
# Python links to these; /lib can be a link to usr/lib.
SYSTEM_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")
ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # so that a verdict does not depend on the order of a set
    "OMP_NUM_THREADS": "1",  # no thread can be started
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class SandboxPolicy(StrictSettings):
    """Permissions of an administrator for functions of users."""

    packages: tuple[PackageName, ...] = Field(
        (),
        max_length=64,
        description="Installed distributions that a function can import, with all that they need, such as numpy.",
    )
    plain_processes: bool = Field(
        False,
        description="Run functions in plain processes on a machine without a sandbox. They can read what the trainer "
        "can read.",
    )

    def confines(self) -> bool:
        """Return True if functions run in the sandbox on this machine, and False if they run in plain processes.

        Raises:
            SandboxError: this machine has no sandbox, and plain processes are not allowed.
        """
        problem = sandbox_problem(self.packages)
        if problem and not self.plain_processes:
            raise SandboxError(f"this machine has no sandbox for functions of users: {problem}")
        return problem is None


NO_PERMISSIONS = SandboxPolicy()


class SandboxError(RuntimeError):
    """A sandbox that cannot be started on this machine, or that has ended; the message has the remedy."""


class GradeError(ValueError):
    """A call of `grade` that gave no number from 0 to 1; the message has the line of the source."""


class Sandbox:
    """A process that calls the `grade` of one source. A context manager; for one thread at a time.

    Args:
        seconds: maximum CPU time per call.
        packages: distributions that the source can import, besides the standard library.
        confined: False: a plain process, with the filter of system calls but with the files of this machine.

    Raises:
        SandboxError: this machine has no sandbox.
    """

    def __init__(
        self, source: str, *, memory_bytes: int, seconds: float, packages: Sequence[str] = (), confined: bool = True
    ) -> None:
        self._seconds = seconds
        paths = _package_paths(packages)
        folders = [PACKAGES] if confined else sorted({str(path.parent) for path in paths})
        try:
            rows = filter_program(platform.machine())
        except ValueError as error:
            raise SandboxError(str(error)) from error
        self._setup = {
            "source": source,
            "memory_bytes": memory_bytes,
            "scratch_bytes": SCRATCH_BYTES,
            "seconds": seconds,
            "packages": folders if paths else [],
            "imports": imported_names(source),
            "filter": rows.hex(),
            "confined": confined,
        }
        self._command = _command(paths) if confined else [_python(), "-B", "-s", "-S", "-P", str(PROGRAM)]
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process with all that runs in it."""
        if self._channel:
            self._channel.close()
        if self._process:
            self._process.kill()  # bubblewrap ends its namespace with itself
            self._process.wait(REAP_SECONDS)
        self._channel = self._process = None

    def grade(self, sample: Mapping[str, Any], item: Mapping[str, Any]) -> float:
        """Return what `grade(sample, item)` returns, 0.0 to 1.0. Both are JSON values.

        Raises:
            GradeError: it returned no such number, raised an error, or its process ended.
            SandboxError: the sandbox cannot be started again.
        """
        if self._process is None:
            self._start()
        try:
            self._send({"sample": sample, "item": item})
            answer = self._receive(self._seconds + STOP_SECONDS)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            raise GradeError(f"the sandbox ended during this call ({error})") from error
        if answer["left_files"]:  # the next call must not find them
            self.close()
        return _number(answer["said"], answer["status"], self._seconds)

    def _start(self) -> None:
        self._channel, theirs = socket.socketpair()
        with tempfile.TemporaryFile() as log:
            with theirs:
                self._process = _started(self._command, theirs, log)
            try:
                self._send(self._setup)
                self._receive(START_SECONDS)
            except (OSError, EOFError, ValueError) as error:
                self.close()
                log.seek(0)
                said = log.read().decode(errors="replace").strip()[-LONGEST_REASON:]
                raise SandboxError(f"the sandbox does not start: {said or error}") from error

    def _send(self, value: Mapping[str, Any]) -> None:
        frame = json.dumps(value).encode()
        assert self._channel
        self._channel.settimeout(START_SECONDS)
        self._channel.sendall(struct.pack(">I", len(frame)) + frame)

    def _receive(self, seconds: float) -> dict[str, Any]:
        """Return the next frame.

        Raises:
            EOFError: the process ended.
            TimeoutError: no frame arrived in time.
            ValueError: what arrived is none.
        """
        assert self._channel
        deadline = time.monotonic() + seconds
        received = bytearray()
        while len(received) < 4 or len(received) < 4 + struct.unpack_from(">I", received)[0]:
            ready, _, _ = select.select([self._channel], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"no answer within {seconds:g} s")
            part = self._channel.recv(LONGEST_FRAME)
            received += part
            if not part:
                raise EOFError("its process ended")
            if len(received) > LONGEST_FRAME:
                raise ValueError("its answer is too long")
        return dict(json.loads(received[4:]))


def _number(said: str, status: int, seconds: float) -> float:
    """Return the verdict in what a call wrote: `[number, null]` or `[null, error]`, and nothing else."""
    if not said:
        if -status in (signal.SIGPROF, signal.SIGXCPU, signal.SIGKILL):
            raise GradeError(f"its process was killed (the limit is {seconds:g} s of CPU time)")
        raise GradeError(f"its process ended without a verdict (exit status {status})")
    try:
        value, error = json.loads(said)
    except (ValueError, TypeError, RecursionError):
        value, error = None, None
    if isinstance(error, str):
        raise GradeError(error)
    if error is not None or isinstance(value, bool) or not isinstance(value, float) or not 0 <= value <= 1:
        raise GradeError("its process wrote something that is no verdict")
    return value


def _started(command: Sequence[str], channel: socket.socket, log: BinaryIO) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, stdin=channel.fileno(), stdout=subprocess.DEVNULL, stderr=log, env=ENVIRONMENT, cwd="/"
        )
    except OSError as error:
        raise SandboxError(f"the sandbox does not start: {error}") from error


def _command(packages: Sequence[Path]) -> list[str]:
    """Return the command of the program in its namespaces, where only Python and `packages` can be read.

    Raises:
        SandboxError: bubblewrap is not installed.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxError("bubblewrap is not installed: install the package bubblewrap, which has the command bwrap")
    namespaces = ["user", "ipc", "pid", "net", "uts", "cgroup-try"]
    arguments = [f"--unshare-{name}" for name in namespaces]
    arguments += ["--uid", NOBODY, "--gid", NOBODY, "--hostname", "sandbox"]
    # The program mounts /tmp, since bubblewrap sets no limit of files, and then drops this capability too.
    arguments += ["--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN"]
    arguments += ["--die-with-parent", "--new-session", "--clearenv"]
    for name, value in ENVIRONMENT.items():
        arguments += ["--setenv", name, value]
    arguments += _interpreter()
    arguments += ["--ro-bind", str(PROGRAM), INSIDE]
    for path in packages:
        arguments += ["--ro-bind", str(path), f"{PACKAGES}/{path.name}"]
    arguments += ["--dev-bind", os.devnull, os.devnull]
    arguments += ["--dir", "/tmp", "--remount-ro", "/"]
    return [bwrap, *arguments, "--", _python(), "-B", "-s", "-S", "-P", INSIDE]


def _interpreter() -> list[str]:
    """Return the arguments that show the interpreter, its library and the libraries of the system, without packages."""
    prefix = Path(sys.base_prefix)
    arguments, shown = ["--ro-bind", _python(), _python()], list[Path]()
    for folder in (*map(Path, SYSTEM_LIBRARIES), prefix / "lib", prefix / "lib64"):
        if folder.is_symlink():
            arguments += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir() and folder not in shown:
            shown.append(folder)
            arguments += ["--ro-bind", str(folder), str(folder)]
    arguments += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    arguments += ["--ro-bind-try", "/usr/share/zoneinfo", "/usr/share/zoneinfo"]
    for folder in map(Path, (*site.getsitepackages([sys.base_prefix]), "/usr/lib/python3/dist-packages")):
        if folder.is_dir() and any(folder.is_relative_to(other) for other in shown):
            arguments += ["--tmpfs", str(folder), "--remount-ro", str(folder)]
    return arguments


def _python() -> str:
    """Return the interpreter itself, not that of a virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def importable(packages: Sequence[str]) -> frozenset[str] | None:
    """Return the names that a function can import: the standard library and those of distributions. None: unknown here,
    as a distribution is not installed on this machine.
    """
    try:
        tops = [_top(path) for path in _package_paths(packages)]
    except SandboxError:
        return None
    return sys.stdlib_module_names | frozenset(tops)


def _top(path: Path) -> str:
    """Return the name of a package folder or of a module: `six` of six.py."""
    return path.name.partition(".")[0]


def _package_paths(names: Sequence[str]) -> list[Path]:
    """Return the folders and modules of distributions.

    Raises:
        SandboxError: one is not installed.
    """
    paths = set[Path]()
    for name in names:
        try:
            found = distribution(name)
        except PackageNotFoundError as error:
            raise SandboxError(f"the package {name!r}, allowed in the sandbox, is not installed") from error
        tops = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}
        paths |= {Path(str(found.locate_file(top))).resolve() for top in tops}
    return sorted(path for path in paths if path.exists())


@cache
def sandbox_problem(packages: tuple[str, ...] = ()) -> str | None:
    """Return why this machine has no sandbox, with the remedy, or None. Tries it once per process."""
    source = "def grade(sample, item):\n    return sample['number']"
    try:
        with Sandbox(source, memory_bytes=2**29, seconds=10, packages=packages) as sandbox:
            found = sandbox.grade({"number": 0.25}, {})
    except (SandboxError, GradeError) as error:
        return str(error)
    return None if found == 0.25 else f"the sandbox answered {found} in place of 0.25"
