"""A worker process of `calibrl_core.verifiers.pool`: judges one question after the other, until its parent is gone.

    python -P -m calibrl_core.verifiers.worker PARENT_PID

Standard input is a socket of JSON lines: first the verifiers, then a question a line; first one line when ready, then
an answer a line. Nothing here is trusted by the parent: it kills a process that says nothing in time.
"""

import ctypes
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter

from calibrl_core.verifiers import Reward

PR_SET_PDEATHSIG = 1
MEMORY_BYTES = 2 * 2**30  # of data; beyond, an allocation fails
LONGEST_ERROR = 500  # characters


def main(parent: int) -> None:
    """Answer the parent's questions until it closes the socket."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that started this one is gone")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with _take_channel() as channel, channel.makefile("rw", encoding="utf-8") as lines:
        verifiers = TypeAdapter(list[Reward]).validate_json(lines.readline())

        def prepare() -> float:
            for verifier in verifiers:
                verifier.prepare()
            return 0.0

        print(_attempt(prepare), file=lines, flush=True)
        for line in lines:
            index, text, truth = json.loads(line)
            print(_attempt(lambda: verifiers[index].judge(text, truth)), file=lines, flush=True)  # noqa: B023


def _take_channel() -> socket.socket:
    """The parent's socket, moved away from standard input; what a verifier prints goes to the log."""
    channel = socket.socket(fileno=os.dup(0))
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return channel


def _attempt(judge: Callable[[], float]) -> str:
    """The verdict and nothing, or 0 and what went wrong, as JSON."""
    try:
        return json.dumps([judge(), None])
    except Exception as error:  # the edge of the process: the parent counts it
        return json.dumps([0.0, f"{type(error).__name__}: {error}"[:LONGEST_ERROR]])


if __name__ == "__main__":
    main(int(sys.argv[1]))
