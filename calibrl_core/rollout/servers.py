"""The vLLM servers that a process asks: their weights, its requests, and the replacement of servers that fail.

Requests wait in threads. All else is done in the main thread: decisions, starts of servers, and whatever needs the
other processes of the run.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from calibrl_core.distributed.ranks import Ranks
from calibrl_core.rollout.vllm_server import RefusedError, ServerError, VLLMServer
from calibrl_core.rollout.weight_files import WeightUpdate

log = logging.getLogger(__name__)

MAX_RESTARTS = 3  # of a server, per run
REQUESTS_AT_ONCE = 256  # vLLM queues the rows that do not fit
PROBE_SECONDS = 60.0  # without an answer to any request, until a server is asked if it still works
ANSWER_SECONDS = 300.0  # limit of that: it answers after its pass, which can take minutes on a CPU


@dataclass
class Asked:
    """Requests that are in flight or answered."""

    bodies: Sequence[Mapping[str, Any]]
    places: Sequence[int]  # of each: the server that gets it
    answers: dict[int, Any] = field(default_factory=dict)  # by the place in `bodies`
    waiting: dict[Future[Any], int] = field(default_factory=dict)  # the same place


class Servers:
    """One or more servers with the same weights."""

    def __init__(self, servers: Sequence[VLLMServer], ranks: Ranks, *, leads: bool, sleep: bool) -> None:
        """Prepare the servers. Every process of a run must do this.

        Args:
            servers: those that this process asks.
            ranks: the processes of the run.
            leads: this process starts the servers and gives them weights; the others that ask them do not.
            sleep: leave the GPU to the trainer between two calls of `load`.
        """
        self._servers, self._ranks, self._leads, self._sleep = servers, ranks, leads, sleep
        self._pool = ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="vllm-request")
        self._update: WeightUpdate | None = None  # the last one
        self._asked = Asked((), ())  # the last requests

    def start(self, update: WeightUpdate | None) -> None:
        """Start the servers, and load weights if there are some. Every process of the run must call this.

        Raises:
            ServerError: one does not start, or does not load the weights; the same error is raised in every process.
        """
        self._update = update
        failure: ServerError | None = None
        try:
            self._launch()
        except ServerError as error:
            failure = error
        failures = self._ranks.gather_everywhere(failure)  # waits for the servers that another process starts
        if first := next((one for one in failures if one), None):
            raise first
        self._learn_of_starts()
        self.rest()

    def _launch(self) -> None:
        if self._leads:
            for server in self._servers:
                server.launch()
            for server in self._servers:
                server.await_start()
                if self._update:
                    self._load(server)

    def _learn_of_starts(self) -> None:
        """Ask the last start of each server, whichever process started it."""
        for server in self._servers:
            with server.locked():
                server.renewed()

    def rest(self) -> None:
        """Leave the GPU to the trainer, if the servers share it."""
        if self._sleep:
            for server in self._servers:
                server.call("POST", "/sleep", level="1")

    def load(self, update: WeightUpdate) -> None:
        """Load weights, in another start of a server if need be. No request can be in flight. Every process of the run
        must call this.

        Raises:
            ServerError: a server failed too often.
        """
        self._update = update
        self._learn_of_starts()  # of servers that another process replaced since the last call
        loading = [self._pool.submit(self._load, server) for server in self._servers if self._leads]
        wait(loading)  # each call has a limit
        for place, done in enumerate(loading):
            if error := done.exception():
                if not isinstance(error, ServerError):
                    raise error
                self._replace(self._servers[place], error)
        self._ranks.any_process(False)  # no process asks a server that has not loaded them

    def _load(self, server: VLLMServer) -> None:
        """Let a server load the weights, and clear everything computed with earlier ones: prefixes and images.

        Raises:
            ServerError: it failed or refused them, and its weights are unknown.
        """
        assert self._update is not None
        try:
            if self._sleep:
                server.call("POST", "/wake_up")
            server.call("POST", "/pause", mode="wait", clear_cache="true")
            self._update.load(server)
            server.call("POST", "/resume")
        except RefusedError as error:
            raise ServerError(str(error)) from error

    def _replace(self, server: VLLMServer, cause: ServerError) -> None:
        """Start a server again with the weights of the last `load`, unless another process has done so. After a failed
        update even one that seems to succeed next can leave wrong weights.

        Raises:
            ServerError: too many restarts, or the server does not start.
        """
        with server.locked():
            replaced = server.renewed()
            while not replaced:
                if server.starts > MAX_RESTARTS:
                    raise ServerError(f"vLLM's server failed {server.starts} times: {cause}: {server.log_end()}")
                log.warning("vLLM's server is started again: %s", cause)
                server.kill()
                server.launch()
                server.await_start()
                try:
                    self._load(server)
                    replaced = True
                except ServerError as error:
                    cause = error

    def ask(self, bodies: Sequence[Mapping[str, Any]], prompts: Sequence[int]) -> Asked:
        """Begin to ask for completions. Prompt n of a step goes to server n modulo the number of servers.

        `prompts`: of each request the number of its prompt in the step.
        """
        self._asked = Asked(bodies, [prompt % len(self._servers) for prompt in prompts])
        self._submit(self._asked)
        return self._asked

    def _submit(self, asked: Asked) -> None:
        for place, body in enumerate(asked.bodies):
            if place not in asked.answers:
                server = self._servers[asked.places[place]]
                asked.waiting[self._pool.submit(self._ask, server, body)] = place

    def _ask(self, server: VLLMServer, body: Mapping[str, Any]) -> Any:
        return server.call("POST", "/inference/v1/generate", body, seconds=None)

    def answers(self, asked: Asked) -> list[Any]:
        """Return the answers. What a failing server loses is asked again, with the weights of the last `load`.

        Raises:
            RefusedError: a server refuses a request.
            ServerError: a server failed too often.
        """
        while len(asked.answers) < len(asked.bodies):
            lost = self._wait(asked)
            for place, error in lost.items():
                self._replace(self._servers[place], error)
            self._submit(asked)
        return [asked.answers[place] for place in range(len(asked.bodies))]

    def _wait(self, asked: Asked) -> dict[int, ServerError]:
        """Wait for all answers; return the error of each server that lost a request."""
        lost: dict[int, ServerError] = {}
        while asked.waiting:
            done, _ = wait(asked.waiting, PROBE_SECONDS, FIRST_COMPLETED)
            for future in done:
                place = asked.waiting.pop(future)
                try:
                    asked.answers[place] = future.result()
                except ServerError as error:
                    lost[asked.places[place]] = error
                except RefusedError:
                    self._kill()  # the run ends: no answer is awaited
                    raise
            if not done:
                for number in {asked.places[place] for place in asked.waiting.values()}:
                    self._probe(self._servers[number])
        return lost

    def _probe(self, server: VLLMServer) -> None:
        """End a server whose worker hangs, while the server says that it is healthy: its requests fail now."""
        try:
            server.call("POST", "/collective_rpc", {"method": "calibrl_answer"}, seconds=ANSWER_SECONDS)
        except ServerError:
            with server.locked():
                if not server.renewed():
                    server.kill()

    def _kill(self) -> None:
        for server in self._servers:
            server.kill()

    def close(self) -> None:
        """End the servers that this process started."""
        if self._asked.waiting:  # no step needs the answers
            self._kill()
        for server in self._servers:
            server.close()
        self._pool.shutdown(cancel_futures=True)
