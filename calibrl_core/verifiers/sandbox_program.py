"""The program in a sandbox: calls `grade(sample, item)` of a source, each call in a process of its own.

Standard input is a socket of frames: four bytes with the length, then JSON. The first frame has the source and the
limits. Each later frame is a request; the answer has what the call's process wrote, and how this process ended.

This process forks at a request and never runs the source itself. The child reads the request, closes the socket, gives
up its rights, runs the source, and writes to a pipe. So a call sees one sample and no trace of another call, and
whatever it changes ends with it. This module imports the standard library only: nothing else is in the sandbox.
"""

import ctypes
import gc
import importlib
import json
import math
import os
import resource
import select
import signal
import socket
import struct
import sys
import traceback
import types
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

SOURCE_NAME = "source"
LONGEST_ANSWER = 8192  # bytes
LONGEST_ERROR = 500  # characters
MOST_FILES = 64  # open at a time
EXIT_SECONDS = 1.0  # from a child's answer to its end
SCRATCH = Path("/tmp")  # a file system of the sandbox alone
MOST_SCRATCH_FILES = 1024  # an empty file takes 1 KB of the kernel's memory
PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 4, 38, 22, 2
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
CAPABILITY_VERSION = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _Filter(ctypes.Structure):
    """A struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("rows", ctypes.c_char_p))


def main() -> None:
    """Answer requests until the socket is closed."""
    channel = socket.socket(fileno=os.dup(0))
    setup = json.loads(_read_frame(channel))
    memory, size = setup["memory_bytes"], setup["scratch_bytes"]
    if setup["confined"]:
        _make_scratch(size)
    for kind, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, size),
        (resource.RLIMIT_NOFILE, MOST_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        _limit(kind, limit, limit)
    code = compile(setup["source"], SOURCE_NAME, "exec", dont_inherit=True)
    sys.path += setup["packages"]
    sys.dont_write_bytecode = True
    for name in setup["imports"]:  # once here, not at each call
        with suppress(Exception):  # the call fails, with the reason
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    with Path(os.devnull).open("r+b", buffering=0) as nothing:
        for fd in (0, 1, 2):
            os.dup2(nothing.fileno(), fd)
    _write_frame(channel, b"{}")
    while True:
        select.select([channel], [], [])
        if not channel.recv(1, socket.MSG_PEEK):
            return
        _answer(channel, code, setup)


def _make_scratch(size: int) -> None:
    """Make the only folder that can be written, and give up the capability that this needs."""
    options = f"size={size},nr_inodes={MOST_SCRATCH_FILES},mode=700".encode()
    _call(_libc.mount, b"scratch", bytes(SCRATCH), b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
    _call(_libc.capset, struct.pack("=Ii", CAPABILITY_VERSION, 0), bytes(24))
    os.chdir(SCRATCH)


def _answer(channel: socket.socket, code: types.CodeType, setup: dict[str, Any]) -> None:
    """Let a child take one request, and send its answer."""
    reply, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reply)
        _run(channel, theirs, code, setup)
    os.close(theirs)
    said = b""
    while len(said) <= LONGEST_ANSWER and (more := os.read(reply, LONGEST_ANSWER)):
        said += more
    os.close(reply)
    ended = os.pidfd_open(child)
    select.select([ended], [], [], EXIT_SECONDS)
    os.close(ended)
    os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    answer = {
        "said": said[: LONGEST_ANSWER + 1].decode(errors="replace"),
        "status": status,
        "left_files": setup["confined"] and any(SCRATCH.iterdir()),
    }
    _write_frame(channel, json.dumps(answer).encode())


def _run(channel: socket.socket, reply: int, code: types.CodeType, setup: dict[str, Any]) -> NoReturn:
    """Run one call in this process, a child, and end it."""
    end = os._exit  # the source can replace it in the module
    try:
        request = json.loads(_read_frame(channel))
        channel.close()
        _confine(setup["seconds"], bytes.fromhex(setup["filter"]))
        os.write(reply, _verdict(code, request["sample"], request["item"]).encode())
    except BaseException as error:
        os.write(reply, json.dumps([None, f"the sandbox failed: {_described(error)}"]).encode())
    finally:
        end(0)


def _confine(seconds: float, program: bytes) -> None:
    """Give up what a call does not need. Children and new rights are out of reach afterwards."""
    # A loop ends a little before the time limit, which costs the whole worker process. The source can stop the timer.
    signal.setitimer(signal.ITIMER_PROF, 0.95 * seconds)
    _limit(resource.RLIMIT_CPU, math.ceil(seconds), math.ceil(seconds) + 1)
    _limit(resource.RLIMIT_NPROC, 0, 0)
    _call(_libc.prctl, PR_SET_DUMPABLE, 0, 0, 0, 0)
    _call(_libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    rows = _Filter(len(program) // 8, program)
    _call(_libc.prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(rows), 0, 0)


def _limit(kind: int, soft: int, hard: int) -> None:
    """Set a limit, or keep the one that this process has if it is lower."""
    _, given = resource.getrlimit(kind)
    most = sys.maxsize if given == resource.RLIM_INFINITY else given
    resource.setrlimit(kind, (min(soft, most), min(hard, most)))


def _call(function: Callable[..., int], *arguments: Any) -> None:
    if function(*arguments):
        raise OSError(ctypes.get_errno(), f"{function.__name__}: {os.strerror(ctypes.get_errno())}")


def _verdict(code: types.CodeType, sample: object, item: object) -> str:
    """Return what the source's `grade` returns, or its error, as JSON."""
    module = types.ModuleType("grader")
    sys.modules["grader"] = module  # dataclasses and pickle look it up
    try:
        exec(code, module.__dict__)
        value = module.grade(sample, item)
        if not hasattr(type(value), "__float__"):
            raise TypeError(f"grade returned {type(value).__name__}; it must return a number from 0 to 1")
        number = float(value)
        if not (math.isfinite(number) and 0 <= number <= 1):
            raise ValueError(f"grade returned {number}; it must return a number from 0 to 1")
        return json.dumps([number, None])
    except BaseException as error:  # SystemExit too ends only this call
        return json.dumps([None, _described(error)])


def _described(error: BaseException) -> str:
    """Return the error in one line, with the line of the source that raised it."""
    try:
        lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if _is_source(frame)]
        at = f"line {lines[-1]}: " if lines else ""
        return f"{at}{type(error).__name__}: {error}"[:LONGEST_ERROR]
    except BaseException:  # the error is a class of the source
        return "an error that cannot be printed"


def _is_source(frame: types.FrameType) -> bool:
    return frame.f_code.co_filename == SOURCE_NAME


def _read_frame(channel: socket.socket) -> bytes:
    (length,) = struct.unpack(">I", _read(channel, 4))
    return _read(channel, length)


def _read(channel: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = channel.recv(length - len(parts))
        if not part:
            raise EOFError("the socket was closed within a frame")
        parts += part
    return bytes(parts)


def _write_frame(channel: socket.socket, frame: bytes) -> None:
    channel.sendall(struct.pack(">I", len(frame)) + frame)


if __name__ == "__main__":
    main()
