"""Worker processes for verdicts that can take long or crash their process.

Workers are new interpreters without torch, started at the first request. The time limit of a request starts when its
worker is ready and stops while the worker waits for a CPU. Only the parent measures time. A worker that exceeds the
limit, dies or sends a wrong line is killed and replaced; its requests score 0, and the others continue. Each worker
leads a session, which is killed as a whole. So no process that a verifier started outlives the worker, and no signal to
the trainer's process group reaches it: a trainer that must stop can finish its step. Workers end if their socket closes
or the trainer ends (`calibrl_core.verifiers.worker`).
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice, takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import NamedTuple, Self

from calibrl_core.host.process_limits import REAP_SECONDS
from calibrl_core.verifiers.base import Verdict, Verifier
from calibrl_core.verifiers.plugin import PluginError
from calibrl_core.verifiers.sandbox import NO_PERMISSIONS, SandboxPolicy

MOST_WORKERS = 4
START_SECONDS = 120.0  # a fresh interpreter and its imports, on a busy machine
MAX_FAILED_STARTS = 3  # workers lost in a row before their first request
SEND_SECONDS = 10.0  # an idle worker reads at once, unless it is stopped by a signal
EXIT_SECONDS = 5.0  # from a worker's closed socket to its end, which gives the exit status
MOST_STARVED_SECONDS = 120.0  # maximum extension of a verdict's limit on a machine with too few CPUs
LONGEST_ANSWER = 2**16  # bytes
MIN_LOSSES = 32  # workers that a batch may lose, or one per 20 requests; then the rest is not judged
NO_IMAGES: Mapping[str, bytes] = MappingProxyType({})
BLOCKED_SIGNALS = {signal.SIGINT, signal.SIGTERM}  # a verifier may signal its process group


class VerdictRequest(NamedTuple):
    """Request to a worker: the verifier (its index in the list), and the texts of a `Deferred`."""

    verifier: int
    text: str
    truth: str


class CpuTimes(NamedTuple):
    """Seconds that a process has run on a CPU and has waited for one. `waits_now`: it is runnable, and may
    have no CPU.
    """

    process: int = 0
    ran: float = 0.0
    waited: float = 0.0
    waits_now: bool = False


class WorkerPool:
    """Judges batches of requests. A context manager; for one thread at a time."""

    def __init__(
        self,
        verifiers: Sequence[Verifier],
        most_workers: int | None = None,
        sandbox: SandboxPolicy = NO_PERMISSIONS,
    ) -> None:
        self._verifiers = verifiers
        self._settings = json.dumps(
            {
                "verifiers": [verifier.model_dump(mode="json") for verifier in verifiers],
                "sandbox": sandbox.model_dump(mode="json"),
            }
        )
        self._folder: TemporaryDirectory[str] | None = None  # images of the current batch; made with the first worker
        self._most_workers = most_workers or min(MOST_WORKERS, len(os.sched_getaffinity(0)))
        self._workers: list[_Worker] = []
        self._failed_starts = 0  # workers lost in a row before their first request

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers. A later batch starts new ones."""
        while self._workers:
            self._workers.pop().kill()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def judge(
        self, requests: Iterable[VerdictRequest], images: Mapping[str, bytes] = NO_IMAGES
    ) -> dict[VerdictRequest, Verdict]:
        """Return the verdict on each distinct request. Takes at most the sum of the time limits, plus a worker's start
        per failed request. `images`: those that the requests name.

        Raises:
            PluginError: a verifier cannot be loaded in a worker.
            RuntimeError: worker processes cannot be started.
            OSError: the images cannot be stored.
        """
        waiting = deque(sorted(dict.fromkeys(requests), key=lambda request: request.verifier))
        with self._stored(images):
            return self._judge(waiting)

    @contextmanager
    def _stored(self, images: Mapping[str, bytes]) -> Iterator[None]:
        """Keep images in the folder that the workers read."""
        paths = [Path(self._images(), name) for name in images]
        for path, image in zip(paths, images.values(), strict=True):
            path.write_bytes(image)
        yield
        for path in paths:
            path.unlink(missing_ok=True)

    def _images(self) -> str:
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="calibrl-images-", ignore_cleanup_errors=True)
        return self._folder.name

    def _judge(self, waiting: deque[VerdictRequest]) -> dict[VerdictRequest, Verdict]:
        most_losses, losses = max(MIN_LOSSES, len(waiting) // 20), 0
        verdicts: dict[VerdictRequest, Verdict] = {}
        while waiting or any(worker.requests for worker in self._workers):
            self._assign(waiting)
            verdicts |= self._receive()
            lost = self._remove_lost()
            verdicts |= lost
            losses += len(lost)
            if losses > most_losses:
                verdicts |= dict.fromkeys(waiting, Verdict(0.0, f"not judged: {losses} others had failed before"))
                waiting.clear()
        return verdicts

    def _assign(self, waiting: deque[VerdictRequest]) -> None:
        busy = sum(worker.requests != () for worker in self._workers)
        while len(self._workers) < min(self._most_workers, busy + len(waiting)):
            self._workers.append(_Worker(self._settings, self._images()))
        for worker in self._workers:
            if waiting and worker.idle and worker.ask(batch := self._batch(waiting), self._limit(batch)):
                for _ in batch:
                    waiting.popleft()

    def _batch(self, waiting: deque[VerdictRequest]) -> tuple[VerdictRequest, ...]:
        """Return the first requests that their verifier takes together."""
        first = waiting[0].verifier
        together = islice(waiting, self._verifiers[first].most_together)
        return tuple(takewhile(lambda request: request.verifier == first, together))

    def _receive(self) -> dict[VerdictRequest, Verdict]:
        """Wait until a worker sends a line or exceeds its limit; return the new verdicts."""
        poll = select.poll()
        by_fd = {worker.socket.fileno(): worker for worker in self._workers}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        seconds = max(0.0, min(worker.deadline for worker in self._workers) - time.monotonic())
        verdicts = dict[VerdictRequest, Verdict]()
        for fd, _ in poll.poll(math.ceil(seconds * 1000)):
            requests = by_fd[fd].requests
            answer = by_fd[fd].receive()
            if answer is None:
                continue
            if not requests and answer.failure is not None:
                raise PluginError(f"a verifier cannot be loaded: {answer.failure}")
            if requests:
                self._failed_starts = 0
                verdicts |= self._named(requests, answer.verdicts)
        return verdicts

    def _remove_lost(self) -> dict[VerdictRequest, Verdict]:
        """Remove workers that died or exceeded their limit; return the verdicts on their requests."""
        verdicts = dict[VerdictRequest, Verdict]()
        for worker in [worker for worker in self._workers if worker.dead or worker.overdue()]:
            self._workers.remove(worker)
            status = worker.kill()
            if not worker.requests:
                self._failed_starts += not worker.asked
                continue
            why = f"no verdict within {self._limit(worker.requests):g} seconds"
            if worker.dead:
                why = worker.wrong or f"its process died (exit status {status})"
            count = len(worker.requests)
            verdicts |= self._named(worker.requests, [Verdict(0.0, why, worker.seconds / count)] * count)
        if self._failed_starts >= MAX_FAILED_STARTS:
            raise RuntimeError("the verifiers' worker processes end before they can judge: see the log for the reason")
        return verdicts

    def _limit(self, batch: Sequence[VerdictRequest]) -> float:
        return len(batch) * self._verifiers[batch[0].verifier].time_limit_seconds

    def _named(self, batch: Sequence[VerdictRequest], verdicts: Sequence[Verdict]) -> dict[VerdictRequest, Verdict]:
        label = self._verifiers[batch[0].verifier].label
        return {
            request: verdict._replace(failure=verdict.failure and f"{label}: {verdict.failure}")
            for request, verdict in zip(batch, verdicts, strict=True)
        }


class _Answer(NamedTuple):
    """Answer of a worker: the scores of its requests, or none and the reason. `seconds`: that it took."""

    scores: tuple[float, ...]
    failure: str | None
    requests: int
    seconds: float = 0.0

    @property
    def verdicts(self) -> list[Verdict]:
        """Return the verdict on each request; the time is shared equally."""
        scores = self.scores or (0.0,) * self.requests
        return [Verdict(score, self.failure, self.seconds / self.requests) for score in scores]


class _Worker:
    """A worker process and its current requests."""

    def __init__(self, settings: str, images: str) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(SEND_SECONDS)
        with theirs:
            self._process = _start(theirs, images)
        self._end = os.pidfd_open(self._process.pid)
        self.dead = False
        self.wrong: str | None = None  # reason why its answer was refused; the worker is then dead
        self.requests: tuple[VerdictRequest, ...] = ()
        self.asked = 0  # questions; the last one's number
        self.deadline = time.monotonic() + START_SECONDS  # for what it is to say next
        self._asked_at = self._limit = 0.0
        self._before = CpuTimes()
        self._ready = False
        self._received = b""
        self._send(settings)

    @property
    def idle(self) -> bool:
        return self._ready and not self.requests and not self.dead

    @property
    def seconds(self) -> float:
        """Return the time since the current question."""
        return time.monotonic() - self._asked_at

    def ask(self, requests: tuple[VerdictRequest, ...], limit: float) -> bool:
        """Send requests to an idle worker; return False if the worker has ended."""
        if self._ended(0) or not self._send(json.dumps([self.asked + 1, requests])):
            self.dead, self.deadline = True, 0.0
            return False
        self._asked_at, self._limit, self._before = time.monotonic(), limit, cpu_times(self._process.pid)
        self.requests, self.deadline = requests, self._asked_at + limit
        self.asked += 1
        return True

    def overdue(self) -> bool:
        """Return whether the deadline has passed; extend it first by the time that the process waited for a CPU."""
        if self.deadline > time.monotonic():
            return False
        if self.requests:
            self.deadline = self._asked_at + self._limit + min(self._starved_seconds(), MOST_STARVED_SECONDS)
        return self.deadline <= time.monotonic()

    def _starved_seconds(self) -> float:
        times = cpu_times(self._process.pid)
        before = self._before if self._before.process == times.process else CpuTimes()
        if times.waits_now:  # the kernel adds a wait when it is over
            return time.monotonic() - self._asked_at - (times.ran - before.ran)
        return times.waited - before.waited

    def receive(self) -> _Answer | None:
        """Read from the worker. A complete line makes it idle and is returned; None if the line is incomplete or the
        worker died.
        """
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        self.dead = not data
        self._received += data
        if self.dead:
            return None
        expected = not self._ready or self.requests != ()
        if expected and b"\n" not in self._received and len(self._received) <= LONGEST_ANSWER:
            return None
        answer = _read(self._received, self.asked, len(self.requests)) if expected else None
        if answer is None:
            self.dead, self.wrong = True, "its worker process sent a line that does not answer this request"
            return None
        seconds = self.seconds if self._ready else 0.0
        self._ready, self.requests, self.deadline, self._received = True, (), math.inf, b""
        return answer._replace(seconds=seconds)

    def kill(self) -> int:
        """Kill its session with all processes in it; return the exit status."""
        if self.dead and not self.wrong:
            self._ended(EXIT_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(
                self._process.pid, signal.SIGKILL
            )  # the worker is not reaped yet: no other process has its number
        self.socket.close()
        os.close(self._end)
        return self._process.wait(REAP_SECONDS)

    def _ended(self, seconds: float) -> bool:
        """Wait for the end of the process for at most `seconds`; return if it has ended."""
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        return bool(poll.poll(int(seconds * 1000)))

    def _send(self, line: str) -> bool:
        try:
            self.socket.sendall(line.encode() + b"\n")
        except OSError:  # the worker died or does not read
            self.dead, self.deadline = True, 0.0
            return False
        return True


def _read(line: bytes, number: int, requests: int) -> _Answer | None:
    """Return a worker's answer to question `number`, of so many requests, or None if the line is not exactly one such
    answer.
    """
    try:
        answered, values, failure = json.loads(line)
        scores = tuple(map(float, values))
        valid = line.endswith(b"\n") and line.count(b"\n") == 1 and answered == number
        valid &= isinstance(values, list) and all(0 <= score <= 1 for score in scores)
    except (ValueError, TypeError, RecursionError):
        return None
    valid &= isinstance(failure, str | None) and len(scores) == (requests if failure is None else 0)
    return _Answer(scores, failure, requests) if valid else None


def cpu_times(keeper: int) -> CpuTimes:
    """Return the times of a worker's judge, the keeper's only child, in seconds; zeros if the kernel counts none. If
    the judge waits for one child, and this for one of its own, such as in a sandbox: the times of the last of them.
    """
    try:
        process = Path("/proc", _only_child(keeper))
        while child := _only_child(int(process.name)):
            process = Path("/proc", child)
        ran, waited, _ = (process / "schedstat").read_text().split()
        state = (process / "stat").read_text().rpartition(") ")[2][0]
    except (OSError, ValueError):
        return CpuTimes()
    return CpuTimes(int(process.name), int(ran) / 1e9, int(waited) / 1e9, state == "R")


def _only_child(process: int) -> str:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return children[0] if len(children) == 1 else ""


def _start(channel: socket.socket, images: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "calibrl_core.verifiers.worker", str(os.getpid()), images]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    # A child inherits blocked signals, so they never reach it.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED_SIGNALS)
    try:
        return subprocess.Popen(command, stdin=channel.fileno(), stdout=2, env=environment, start_new_session=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
