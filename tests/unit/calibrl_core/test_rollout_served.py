"""The engine on a vLLM server, without vLLM: requests, lost answers, versions, and the files of the weights.

What a real server does is in tests/process/calibrl_core/test_rollout_server.py.
"""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from calibrl_core.config import TrainConfig
from calibrl_core.data.schema import Example
from calibrl_core.distributed.ranks import ALONE
from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import Policy
from calibrl_core.rollout import served
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.served import ServedEngine
from calibrl_core.rollout.vllm import StaleWeightsError
from calibrl_core.rollout.vllm_server import RefusedError, ServerError
from calibrl_core.rollout.weight_files import WeightFiles

REQUEST = SamplingRequest(group_size=2, temperature=0.5, max_tokens=3, seed=[7], first_row=4)


class FakeServer:
    """Answers each request with tokens 70 to 70 + the row in its group, with the last version of the weights."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.calls: list[tuple[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.lose: list[ServerError] = []  # raised by the next requests
        self.fail_update = self.hang = False
        self.starts = 0
        self.version = "default"
        self.killed = threading.Event()

    def start(self) -> None:
        self.starts += 1
        self.version = "default"
        self.killed.clear()

    def kill(self) -> None:
        self.killed.set()

    def stop(self) -> None:
        self.kill()

    close = stop

    def log_end(self) -> str:
        return "last line"

    def call(self, method: str, path: str, body: Any = None, seconds: Any = None, **query: str) -> Any:
        self.calls.append((path, body or query))
        if path == "/update_weights" and self.fail_update:
            self.fail_update = False
            raise ServerError("half-way")
        if path == "/finish_weight_update":
            self.version = body["weight_version"]
        if path == "/collective_rpc" and self.hang:
            raise ServerError("no answer")
        return self.answer(body) if path == "/inference/v1/generate" else None

    def answer(self, body: Any) -> Any:
        self.asked.append(body)
        if self.hang:
            assert self.killed.wait(60)
            self.hang = False
            raise ServerError("killed")
        if self.lose:
            raise self.lose.pop()
        (tokens,) = [one for one in PROMPTS if self.policy.encoder.unexpanded(one)[0] == body["token_ids"]][:1]
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


PROMPTS: list[Example] = []


@pytest.fixture
def fake(policy: Policy, examples: list[Example], monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    PROMPTS[:] = examples[:2]
    server = FakeServer(policy)
    monkeypatch.setattr(served, "VLLMServer", lambda *_: server)
    return server


@pytest.fixture
def engine(fake: FakeServer, policy: Policy) -> Iterator[ServedEngine]:
    made = ServedEngine(policy, 1000)
    yield made
    made.close()


def sampled(engine: ServedEngine, request: SamplingRequest = REQUEST) -> Any:
    with engine.sampling():
        return engine.generate(PROMPTS, request)


def test_a_group_is_one_request_with_a_seed_of_its_first_row(engine: ServedEngine, fake: FakeServer) -> None:
    sampled(engine)
    one, two = (body["sampling_params"] for body in fake.asked)
    assert (one["n"], one["temperature"], one["max_tokens"]) == (2, 0.5, 3)
    assert one["seed"] != two["seed"]
    fake.asked.clear()
    with engine.sampling():
        engine.generate(PROMPTS[1:], replace(REQUEST, first_row=6))
    assert fake.asked[0]["sampling_params"]["seed"] == two["seed"]


def test_rows_are_in_the_order_of_prompts_and_groups(engine: ServedEngine, policy: Policy) -> None:
    rollouts = sampled(engine)
    assert rollouts.tokens.tolist() == [[70, 70, 70], [70, 70, 71]] * 2
    torch.testing.assert_close(rollouts.sampler_logprobs[1], torch.tensor([-1.0, -2.0, -0.5]))
    with torch.no_grad():
        expected = policy.token_logprobs(PROMPTS, [0, 0, 1, 1], rollouts.tokens, rollouts.mask, 0.5, with_entropy=True)
    torch.testing.assert_close(rollouts.logprobs, expected.logprobs, rtol=0, atol=1e-5)
    torch.testing.assert_close(rollouts.entropies, expected.entropies, rtol=0, atol=1e-5)


def test_a_server_on_a_gpu_is_awake_only_while_it_samples(
    fake: FakeServer, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "vllm_arguments", lambda *_: {"dtype": torch.float32, "enable_sleep_mode": True})
    engine = ServedEngine(policy, 1000)
    assert [path for path, _ in fake.calls] == ["/sleep"]
    fake.calls.clear()
    sampled(engine)
    engine.close()
    paths = [path for path, _ in fake.calls]
    assert (paths[0], paths[-1]) == ("/wake_up", "/sleep")


def test_a_greedy_group_is_one_completion_repeated(engine: ServedEngine, fake: FakeServer) -> None:
    rollouts = sampled(engine, SamplingRequest(group_size=2, temperature=0, max_tokens=3, seed=[7]))
    assert [body["sampling_params"]["n"] for body in fake.asked] == [1, 1]
    assert rollouts.tokens.tolist() == [[70, 70, 70]] * 4


def test_lost_requests_are_asked_again_of_a_new_server(engine: ServedEngine, fake: FakeServer) -> None:
    expected = sampled(engine)
    fake.asked.clear()
    fake.lose = [ServerError("gone")]
    rollouts = sampled(engine)
    assert torch.equal(rollouts.tokens, expected.tokens)
    assert fake.starts == 2
    assert len(fake.asked) == 3  # one of two was lost
    assert fake.calls[-2:][0][0] == "/resume"  # the new server has the weights before the request


def test_a_server_whose_worker_hangs_is_replaced(
    engine: ServedEngine, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "PROBE_SECONDS", 0.05)
    fake.hang = True
    assert sampled(engine).tokens.shape == (4, 3)
    assert fake.starts == 2


def test_a_failed_update_restarts_the_server(engine: ServedEngine, fake: FakeServer) -> None:
    fake.fail_update = True
    sampled(engine)
    paths = [path for path, _ in fake.calls if path.startswith(("/start", "/update", "/finish"))]
    assert paths == ["/start_weight_update", "/update_weights"] * 2 + ["/finish_weight_update"]
    assert fake.starts == 2


def test_a_server_that_fails_again_and_again_ends_the_run(engine: ServedEngine, fake: FakeServer) -> None:
    fake.lose = [ServerError("gone")] * 100
    with pytest.raises(ServerError, match=r"failed 4 times.*last line"):
        sampled(engine)
    assert fake.starts == 4


def test_completions_of_other_weights_are_refused(engine: ServedEngine, fake: FakeServer) -> None:
    with engine.sampling():
        fake.version = "0"
        with pytest.raises(StaleWeightsError, match="not 1"):
            engine.generate(PROMPTS, REQUEST)
    with pytest.raises(StaleWeightsError, match="within"):
        engine.generate(PROMPTS, REQUEST)


def test_a_refused_request_and_a_failed_start_name_the_field(
    engine: ServedEngine, fake: FakeServer, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise RefusedError("too hot")

    def fail() -> None:
        raise ServerError("no such model")

    monkeypatch.setattr(fake, "answer", refuse)
    with pytest.raises(ModelError, match=r"rollout\.engine: too hot; use the engine shared_prefill"):
        sampled(engine)
    monkeypatch.setattr(fake, "start", fail)
    with pytest.raises(ModelError, match=r"rollout\.engine: .*no such model"):
        ServedEngine(policy, 1000)


def test_weight_files_hold_the_weights_of_the_moment(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibrl_core.models.tensor_files.FILE_BYTES", 2**20)
    files = WeightFiles(policy, torch.bfloat16, ALONE)
    for _ in range(2):  # the second time over the first files
        paths = files.write()
        assert len(paths) > 2
        found = {name: tensor for path in paths for name, tensor in load_file(path).items()}
        expected = dict(policy.saved_tensors())
        assert found.keys() == expected.keys() >= {*policy.trained}
        assert all(torch.equal(found[name], tensor.bfloat16()) for name, tensor in expected.items())
    files.close()
    assert not Path(paths[0]).parent.exists()


@pytest.mark.parametrize(
    "rollout, validation, message",
    [
        ({"stop": ["end"]}, {}, "stop strings"),
        ({"temperature": 2.5}, {}, "permits 2"),
        ({}, {"temperature": 3}, r"validation\.temperature"),
    ],
)
def test_settings_that_a_server_lacks_are_refused(rollout: Any, validation: Any, message: str) -> None:
    data = {"builtin": "digits"}
    given = {"model": {"builtin": "tiny-vlm"}, "data": data, "steps": 1, "validation": {"data": data, **validation}}
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate({**given, "rollout": {"engine": "vllm_server", **rollout}})
    TrainConfig.model_validate({**given, "rollout": {"engine": "vllm", **rollout}})
