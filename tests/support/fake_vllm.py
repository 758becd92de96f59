"""A vLLM server without vLLM."""

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from calibrl_core.data.schema import Example
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.vllm_server import RefusedError, ServerError


class FakeServer:
    """Answers each request with tokens 70 to 70 + the row in its group, with the last version of the weights."""

    def __init__(self, policy: Policy, prompts: Sequence[Example]) -> None:
        """`prompts`: all that are asked for."""
        self.policy, self.prompts = policy, prompts
        self.calls: list[tuple[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.lose: list[ServerError] = []  # raised by the next requests
        self.fail_update = self.hang = False
        self.fail_start: ServerError | None = None  # raised by the next start
        self.replaced = False  # by another process; calls fail until this one learns of it
        self.starts = 0
        self.version = "default"
        self.layers: int | None = None  # that it applies of each adapter; None: it cannot load one
        self.adapters: dict[str, Path] = {}  # by name
        self.began, self.killed = threading.Event(), threading.Event()

    def launch(self) -> None:
        self.starts += 1
        self.version = "default"
        self.adapters.clear()
        self.killed.clear()

    def await_start(self) -> None:
        assert self.starts
        if self.fail_start:
            failure, self.fail_start = self.fail_start, None
            raise failure

    def locked(self) -> AbstractContextManager[None]:
        return nullcontext()

    def renewed(self) -> bool:
        replaced, self.replaced = self.replaced, False
        return replaced

    def kill(self) -> None:
        self.killed.set()

    def close(self) -> None:
        self.kill()

    def log_end(self) -> str:
        return "last line"

    def call(self, method: str, path: str, body: Any = None, seconds: Any = None, **query: str) -> Any:
        if self.replaced:
            raise ServerError("the start that was asked is gone")
        self.calls.append((path, body or query))
        if path == "/update_weights" and self.fail_update:
            self.fail_update = False
            raise ServerError("half-way")
        if path == "/finish_weight_update":
            self.version = body["weight_version"]
        if path == "/collective_rpc":
            return self.rpc(body["method"])
        if path.endswith("_lora_adapter"):
            self.change_adapters(path, body)
        if path == "/update_weight_version":
            self.version = body["new_version"]
        return self.answer(body) if path == "/inference/v1/generate" else None

    def rpc(self, method: str) -> Any:
        if self.hang:
            raise ServerError("no answer")
        return {"results": [str(self.layers)]} if method == "calibrl_adapted_layers" else None

    def change_adapters(self, path: str, body: Any) -> None:
        name, loads = body["lora_name"], path == "/v1/load_lora_adapter"
        if loads and self.layers is None:
            raise ServerError("no such layer")
        if loads == (name in self.adapters):
            raise RefusedError(name)
        if loads:
            self.adapters[name] = Path(body["lora_path"])
        else:
            del self.adapters[name]

    def answer(self, body: Any) -> Any:
        if body.get("model") not in (None, *self.adapters):
            raise RefusedError("no such model")
        self.asked.append(body)
        self.began.set()
        if self.hang:
            assert self.killed.wait(60)
            self.hang = False
            raise ServerError("killed")
        if self.lose:
            raise self.lose.pop()
        (tokens,) = [one for one in self.prompts if self.policy.encoder.unexpanded(one)[0] == body["token_ids"]][:1]
        choices = [
            {
                "index": row,
                "token_ids": [70] * 2 + [70 + row],
                "logprobs": {"content": [{"logprob": -1.0}, {"logprob": -2.0}, {"logprob": -0.5 * row}]},
                "weight_versions": [{"version": self.version, "start": 0, "end": 3}],
            }
            for row in reversed(range(body["sampling_params"]["n"]))
        ]
        return {"prompt_token_ids": self.policy.encode([tokens]).input_ids[0].tolist(), "choices": choices}
