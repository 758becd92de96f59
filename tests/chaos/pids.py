"""Processes by owner, found in the list of all processes."""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import UUID

SECRET = b"DATABASE_URL="  # processes with it in their environment belong to the service; a trainer never has it


def trainers(job_id: UUID, attempt: int | None = None) -> list[int]:
    """Return processes of a job's run (of one attempt): by command line, environment, working folder or open file."""
    marker = f"runs/{job_id}" + (f"/attempt-{attempt}/" if attempt else "")
    return [pid for pid in _all() if _mentions(pid, marker.encode())]


def trainers_of_any(data_dir: Path) -> list[int]:
    """Return processes of any run below this folder."""
    return [pid for pid in _all() if _mentions(pid, os.fsencode(data_dir / "runs"))]


def supervisor(job_id: UUID) -> int | None:
    """Return the worker's process that runs the job."""
    parents = {parent(pid) for pid in trainers(job_id)} - set(trainers(job_id))
    return next(iter(parents & set(_all())), None)


def parent(pid: int) -> int:
    """Return the parent's pid; 0 if the process has ended."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def children(pid: int) -> list[int]:
    """Return the children that belong to the service: of a worker, its slots."""
    return [child for child in _all() if parent(child) == pid and SECRET in _read(child, "environ")]


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to those processes that still exist."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _all() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if int(path.name) != os.getpid()]


def _read(pid: int, name: str) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def _mentions(pid: int, marker: bytes) -> bool:
    environment = _read(pid, "environ")
    if SECRET in environment:
        return False
    words = [_read(pid, "cmdline") + b"/", environment]
    with suppress(OSError):  # a zombie has no environment
        words.append(os.fsencode(Path(f"/proc/{pid}/cwd").readlink()) + b"/")
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                words.append(os.fsencode(path.readlink()))
    return any(marker in word for word in words)


def command(pid: int) -> str:
    """Return the command line of a process."""
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
