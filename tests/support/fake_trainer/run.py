"""Parts that both fake commands share: the arguments, the stop signal, and a small valid PNG."""

import argparse
import os
import signal
import struct
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from calibrl_core.report import DISK_FULL_STATUS, EventFile, is_disk_full

HOLD_SECONDS = 1800.0  # for so long a test may hold a run


def arguments() -> tuple[str, Path]:
    """The config's JSON and the run's folder, from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--root", action="append")
    parser.add_argument("--closed", action="append")
    parser.add_argument("--cache")
    parser.add_argument("--cache-bytes")
    options = parser.parse_args()
    return options.config.read_text(), options.run_dir


def run_process(run: Callable[[], None]) -> None:
    """Run, and end as the real trainer does where the disk is full."""
    try:
        run()
    except OSError as error:
        if not is_disk_full(error):
            raise
        with suppress(OSError):
            EventFile(arguments()[1]).emit("error", reason="disk_full", message=f"the disk is full: {error}")
        os._exit(DISK_FULL_STATUS)  # nothing is flushed: the log may be on the same disk


def stop_event() -> threading.Event:
    """Set once TERM has come."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return stop


def hold(run_dir: Path, point: str, stop: threading.Event | None = None) -> None:
    """Wait while the file `hold-<point>` is beside the folders of the job's attempts.

    The file `held-<point>` there marks that the run has reached the point. Also ends once `stop` is set.
    """
    gate = run_dir.parent / f"hold-{point}"
    if not gate.exists():
        return
    gate.with_name(f"held-{point}").touch()
    deadline = time.monotonic() + HOLD_SECONDS
    while gate.exists() and time.monotonic() < deadline and not (stop and stop.is_set()):
        time.sleep(0.01)


def png(shade: int, size: int = 28) -> bytes:
    """A grey square with a light diagonal."""
    rows = b"".join(b"\0" + bytes(255 if x == y else shade % 200 for x in range(size)) for y in range(size))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
