"""A few worker processes that judge what may take long or bring its process down.

They are fresh interpreters without torch, started when the first question comes; a question's clock starts when its
worker is ready and stops while the worker waits for a CPU. Only the parent keeps time. A worker that overruns, dies or
sends a wrong line is killed and replaced, its question scores 0, and the others go on. Each worker leads a session of
its own, which is killed as a whole, so no process that a verifier started outlives it, and no signal to the trainer's
process group reaches it: a trainer asked to stop can finish its step. Workers end if their socket closes or the
trainer ends (`calibrl_core.verifiers.worker`).
"""

import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from calibrl_core.verifiers import Reward
from calibrl_core.verifiers.plugin import PluginError

MOST_WORKERS = 4
START_SECONDS = 120.0  # a fresh interpreter and its imports, on a busy machine
MOST_FRUITLESS = 3  # workers lost in a row before they had a question
SEND_SECONDS = 10.0  # an idle worker reads at once, unless someone has stopped it
EXIT_SECONDS = 5.0  # from a worker's closed socket to its own end, which has the exit status
MOST_STARVED_SECONDS = 120.0  # that a verdict's limit is extended by at most, on a machine with too few CPUs
REAP_SECONDS = 30.0  # a killed process that still hasn't ended is stuck in the kernel
LONGEST_ANSWER = 2**16  # bytes
FEWEST_LOSSES = 32  # workers that a batch may cost, or one for every 20 questions: then the rest is not asked
DEAF_TO = {signal.SIGINT, signal.SIGTERM}  # a verifier may signal its process group


class Question(NamedTuple):
    """What a worker is asked: which verifier (its place in the list), and a `Pending`'s fields."""

    verifier: int
    text: str
    truth: str


class Verdict(NamedTuple):
    """0.0 to 1.0; or 0.0 and why there is no verdict."""

    value: float
    failure: str | None = None


class CpuTimes(NamedTuple):
    """How long a process has had a CPU and has waited for one; `waits_now`: it can run, and may have none."""

    ran: float = 0.0
    waited: float = 0.0
    waits_now: bool = False


class WorkerPool:
    """Judges batches of questions. A context manager; for one thread at a time."""

    def __init__(self, verifiers: Sequence[Reward], most_workers: int | None = None) -> None:
        self._verifiers = verifiers
        self._settings = json.dumps([verifier.model_dump(mode="json") for verifier in verifiers])
        self._most_workers = most_workers or min(MOST_WORKERS, len(os.sched_getaffinity(0)))
        self._workers: list[_Worker] = []
        self._fruitless = 0  # workers lost in a row before they had a question

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers. A later batch starts new ones."""
        while self._workers:
            self._workers.pop().kill()

    def judge(self, questions: Iterable[Question]) -> dict[Question, Verdict]:
        """The verdict on each different question. Takes at most the sum of the time limits, and a worker's start for
        each that fails.

        Raises:
            PluginError: a verifier can't be loaded in a worker.
            RuntimeError: worker processes can't be started.
        """
        waiting = deque(dict.fromkeys(questions))
        most_losses, losses = max(FEWEST_LOSSES, len(waiting) // 20), 0
        verdicts: dict[Question, Verdict] = {}
        while waiting or any(worker.question for worker in self._workers):
            self._hand_out(waiting)
            verdicts |= self._hear()
            lost = self._bury()
            verdicts |= lost
            losses += len(lost)
            if losses > most_losses:
                verdicts |= dict.fromkeys(waiting, Verdict(0.0, f"not judged: {losses} others had failed before"))
                waiting.clear()
        return verdicts

    def _hand_out(self, waiting: deque[Question]) -> None:
        busy = sum(worker.question is not None for worker in self._workers)
        while len(self._workers) < min(self._most_workers, busy + len(waiting)):
            self._workers.append(_Worker(self._settings))
        for worker in self._workers:
            if waiting and worker.idle and worker.ask(waiting[0], self._limit(waiting[0])):
                waiting.popleft()

    def _hear(self) -> dict[Question, Verdict]:
        """Wait until a worker says something or is overdue; the verdicts that came."""
        poll = select.poll()
        by_fd = {worker.socket.fileno(): worker for worker in self._workers}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        seconds = max(0.0, min(worker.deadline for worker in self._workers) - time.monotonic())
        verdicts = {}
        for fd, _ in poll.poll(math.ceil(seconds * 1000)):
            question = by_fd[fd].question
            verdict = by_fd[fd].hear()
            if verdict is None:
                continue
            if question is None and verdict.failure is not None:
                raise PluginError(f"a verifier can't be loaded: {verdict.failure}")
            if question is not None:
                self._fruitless = 0
                verdicts[question] = self._named(question, verdict.value, verdict.failure)
        return verdicts

    def _bury(self) -> dict[Question, Verdict]:
        """Part with workers that died or are overdue; the verdicts on their questions."""
        verdicts = {}
        for worker in [worker for worker in self._workers if worker.dead or worker.overdue()]:
            self._workers.remove(worker)
            status = worker.kill()
            if worker.question is None:
                self._fruitless += not worker.asked
                continue
            why = f"no verdict within {self._limit(worker.question):g} seconds"
            if worker.dead:
                why = worker.wrong or f"its process died (exit status {status})"
            verdicts[worker.question] = self._named(worker.question, 0.0, why)
        if self._fruitless >= MOST_FRUITLESS:
            raise RuntimeError("the verifiers' worker processes end before they can judge; the log may say why")
        return verdicts

    def _limit(self, question: Question) -> float:
        return self._verifiers[question.verifier].time_limit_seconds

    def _named(self, question: Question, value: float, failure: str | None) -> Verdict:
        return Verdict(value, failure and f"{self._verifiers[question.verifier].label}: {failure}")


class _Worker:
    """One process, and the question it has."""

    def __init__(self, settings: str) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(SEND_SECONDS)
        with theirs:
            self._process = _start(theirs)
        self._end = os.pidfd_open(self._process.pid)
        self.dead = False
        self.wrong: str | None = None  # why its answer was refused, which makes it dead
        self.question: Question | None = None
        self.asked = 0  # questions; the last one's number
        self.deadline = time.monotonic() + START_SECONDS  # for what it is to say next
        self._asked_at = self._limit = 0.0
        self._before = CpuTimes()
        self._ready = False
        self._heard = b""
        self._send(settings)

    @property
    def idle(self) -> bool:
        return self._ready and self.question is None and not self.dead

    def ask(self, question: Question, limit: float) -> bool:
        """Put a question to an idle worker; False where it turns out to be gone."""
        if self._ended(0) or not self._send(json.dumps([self.asked + 1, question])):
            self.dead, self.deadline = True, 0.0
            return False
        self._asked_at, self._limit, self._before = time.monotonic(), limit, cpu_times(self._process.pid)
        self.question, self.deadline = question, self._asked_at + limit
        self.asked += 1
        return True

    def overdue(self) -> bool:
        """Return whether the deadline has passed; extend it first by the time that the process waited for a CPU."""
        if self.deadline > time.monotonic():
            return False
        if self.question is not None:
            self.deadline = self._asked_at + self._limit + min(self._starved_seconds(), MOST_STARVED_SECONDS)
        return self.deadline <= time.monotonic()

    def _starved_seconds(self) -> float:
        times = cpu_times(self._process.pid)
        if times.waits_now:  # the kernel adds a wait when it is over
            return time.monotonic() - self._asked_at - (times.ran - self._before.ran)
        return times.waited - self._before.waited

    def hear(self) -> Verdict | None:
        """Take what it has to say, which makes it idle. None where it is not done, or dead."""
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        self.dead = not data
        self._heard += data
        if self.dead:
            return None
        asked = not self._ready or self.question is not None
        if asked and b"\n" not in self._heard and len(self._heard) <= LONGEST_ANSWER:
            return None
        verdict = _read(self._heard, self.asked) if asked else None
        if verdict is None:
            self.dead, self.wrong = True, "its worker process sent a line that does not answer this question"
            return None
        self._ready, self.question, self.deadline, self._heard = True, None, math.inf, b""
        return verdict

    def kill(self) -> int:
        """End its whole session, whatever runs there; the exit status."""
        if self.dead and not self.wrong:
            self._ended(EXIT_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # the worker is not reaped yet: the number is still its own
        self.socket.close()
        os.close(self._end)
        return self._process.wait(REAP_SECONDS)

    def _ended(self, seconds: float) -> bool:
        """Wait for the process's end, but no longer than `seconds`."""
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        return bool(poll.poll(int(seconds * 1000)))

    def _send(self, line: str) -> bool:
        try:
            self.socket.sendall(line.encode() + b"\n")
        except OSError:  # it died, or reads no more
            self.dead, self.deadline = True, 0.0
            return False
        return True


def _read(line: bytes, number: int) -> Verdict | None:
    """The verdict in a worker's answer to question `number`; None where it is not exactly one such answer."""
    try:
        told, value, failure = json.loads(line)
        valid = line.endswith(b"\n") and line.count(b"\n") == 1 and told == number and 0 <= value <= 1
    except (ValueError, TypeError, RecursionError):
        return None
    return Verdict(float(value), failure) if valid and isinstance(failure, str | None) else None


def cpu_times(keeper: int) -> CpuTimes:
    """Return the times of a worker's judge, the keeper's only child, in seconds; zeros if the kernel counts none."""
    try:
        process = Path("/proc", Path(f"/proc/{keeper}/task/{keeper}/children").read_text().strip())
        ran, waited, _ = (process / "schedstat").read_text().split()
        state = (process / "stat").read_text().rpartition(") ")[2][0]
    except (OSError, ValueError):
        return CpuTimes()
    return CpuTimes(int(ran) / 1e9, int(waited) / 1e9, state == "R")


def _start(channel: socket.socket) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "calibrl_core.verifiers.worker", str(os.getpid())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    # A child inherits what is blocked: so it is deaf from its start.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, DEAF_TO)
    try:
        return subprocess.Popen(command, stdin=channel.fileno(), stdout=2, env=environment, start_new_session=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
