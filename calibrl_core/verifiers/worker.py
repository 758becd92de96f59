"""A worker process of `calibrl_core.verifiers.pool`: answers requests one by one until its parent ends.

    python -P -m calibrl_core.verifiers.worker PARENT_PID IMAGES

IMAGES is the folder of the images that requests name. The keeper removes it if the parent dies.

Standard input is a socket of JSON lines. The parent sends the verifiers and the permissions of the sandbox, then one
question per line: its number, and one or several `calibrl_core.verifiers.pool.VerdictRequest` to one verifier. The
worker sends one line when it is ready (number 0), then one line per answer: the question's number, the verdicts, and
the reason if there are no verdicts. The parent trusts no line: it kills a worker that sends a wrong one, or none in
time.

A worker is two processes in one session. The keeper leads the session and waits. The judge runs the verifiers. Code of
a verifier can stop every thread of the judge, so only another process can end the processes that it has started: the
keeper kills the session's process group if the parent ends.
"""

import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter

from calibrl_core.host.parent_death import end_with_parent
from calibrl_core.verifiers.python_function import PythonReward
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.reward_input import ImageFiles
from calibrl_core.verifiers.sandbox import SandboxPolicy

MEMORY_BYTES = 2 * 2**30  # of data; beyond, an allocation fails
LONGEST_ERROR = 500  # characters


def main(parent: int, images: Path) -> None:
    """Start the judge, and wait until it ends or the process `parent` ends."""
    watched = os.pidfd_open(parent)
    if os.getppid() != parent:
        sys.exit("the process that started this one is gone")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    keeper = os.getpid()
    judge = os.fork()  # no thread runs yet
    if judge:
        _keep(judge, watched, images)
    os.close(watched)
    end_with_parent(lambda parent: parent == keeper, "the process that keeps this one is gone")
    ImageFiles.folder = images
    _judge()


def _keep(judge: int, parent: int, images: Path) -> None:
    """Wait for the end of the judge and end in the same way; if the parent (a pidfd) ends first, remove the images and
    kill the process group.
    """
    _to_devnull(0)
    ended = os.pidfd_open(judge)
    poll = select.poll()
    for fd in (ended, parent):
        poll.register(fd, select.POLLIN)
    if ended not in dict(poll.poll()):
        os.kill(judge, signal.SIGKILL)
        shutil.rmtree(images, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(judge, 0)[1])
    if status < 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-status})
        os.kill(os.getpid(), -status)
    os._exit(status)


def _judge() -> None:
    """Answer the parent's requests until it closes the socket."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    with _take_channel() as channel, channel.makefile("rw", encoding="utf-8") as lines:
        settings = json.loads(lines.readline())
        verifiers = TypeAdapter(list[Reward]).validate_python(settings["verifiers"])
        PythonReward.policy = SandboxPolicy.model_validate(settings["sandbox"])

        def prepare() -> list[float]:
            for verifier in verifiers:
                verifier.prepare()
            return []

        print(_attempt(0, prepare), file=lines, flush=True)
        for line in lines:
            number, requests = json.loads(line)
            judge, asked = verifiers[requests[0][0]], [(text, truth) for _, text, truth in requests]
            print(_attempt(number, lambda: judge.judge_all(asked)), file=lines, flush=True)  # noqa: B023


def _take_channel() -> socket.socket:
    """Return the parent's socket, moved away from standard input; a verifier's output goes to the log."""
    channel = socket.socket(fileno=os.dup(0))
    _to_devnull(0)
    os.dup2(2, 1)
    # A child that a verifier forks must neither read the next request nor hold the socket open.
    os.register_at_fork(after_in_child=lambda: _to_devnull(channel.fileno()))
    return channel


def _to_devnull(fd: int) -> None:
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), fd)


def _attempt(number: int, judge: Callable[[], list[float]]) -> str:
    """Return the answer to question `number` as JSON: the number, the verdicts, and None or the error."""
    process = os.getpid()
    try:
        answer = json.dumps([number, judge(), None])
    except Exception as error:  # the parent counts it as a failed verdict
        answer = json.dumps([number, [], f"{type(error).__name__}: {error}"[:LONGEST_ERROR]])
    if os.getpid() != process:
        os._exit(0)  # a child that the verifier forked also reaches this line: only its parent answers
    return answer


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
