"""The engine on a vLLM server, without vLLM: requests, lost answers, versions, and the files of the weights.

What a real server does is in tests/process/calibrl_core/test_rollout_server.py.
"""

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
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
from calibrl_core.rollout import server_layout, servers
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.served import ServedEngine, StaleWeightsError
from calibrl_core.rollout.vllm_server import RefusedError, ServerError
from calibrl_core.rollout.weight_files import WeightFiles
from calibrl_core.settings.sampling import EngineSettings, RolloutSettings, SamplingSettings
from tests.support.fake_vllm import FakeServer

SETTINGS = EngineSettings(engine="vllm_server", batch_tokens=1000)
AHEAD = RolloutSettings(engine="vllm_server", batch_tokens=1000, max_staleness=1)
REQUEST = SamplingRequest(group_size=2, temperature=0.5, max_tokens=3, seed=[7], first_row=4)


PROMPTS: list[Example] = []


@pytest.fixture
def fake(policy: Policy, examples: list[Example], monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    PROMPTS[:] = examples[:2]
    server = FakeServer(policy, PROMPTS)
    monkeypatch.setattr(server_layout, "VLLMServer", lambda *_: server)
    return server


@pytest.fixture
def engine(fake: FakeServer, policy: Policy) -> Iterator[ServedEngine]:
    made = ServedEngine(policy, SETTINGS)
    yield made
    made.close()


def sampled(engine: ServedEngine, request: SamplingRequest = REQUEST) -> Any:
    with engine.sampling(1):
        return engine.generate(PROMPTS, request)


def test_a_group_is_one_request_with_a_seed_of_its_first_row(engine: ServedEngine, fake: FakeServer) -> None:
    sampled(engine)
    one, two = (body["sampling_params"] for body in fake.asked)
    assert (one["n"], one["temperature"], one["max_tokens"]) == (2, 0.5, 3)
    assert one["seed"] != two["seed"]
    fake.asked.clear()
    with engine.sampling(1):
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
    monkeypatch.setattr(server_layout, "beside_policy", lambda _: {"enable_sleep_mode": True})
    engine = ServedEngine(policy, SETTINGS)
    assert [path for path, _ in fake.calls] == ["/sleep"]
    fake.calls.clear()
    sampled(engine)
    engine.close()
    paths = [path for path, _ in fake.calls]
    assert (paths[0], paths[-1]) == ("/wake_up", "/sleep")
    fake.calls.clear()
    ahead = ServedEngine(policy, AHEAD)  # it samples during the update
    sampled(ahead)
    ahead.close()
    assert not {"/wake_up", "/sleep"} & {path for path, _ in fake.calls}


def test_a_greedy_group_is_one_completion_repeated(engine: ServedEngine, fake: FakeServer) -> None:
    rollouts = sampled(engine, SamplingRequest(group_size=2, temperature=0, max_tokens=3, seed=[7]))
    assert [body["sampling_params"]["n"] for body in fake.asked] == [1, 1]
    assert rollouts.tokens.tolist() == [[70, 70, 70]] * 4


def test_stop_strings_are_found_by_the_server_and_stay_in_the_text(
    engine: ServedEngine, fake: FakeServer, policy: Policy
) -> None:
    sampled(engine)
    string = policy.tokenizer.decode([70, 71])  # the end of the second completion of each group
    rollouts = sampled(engine, replace(REQUEST, sampling=SamplingSettings(stop=(string,))))
    plain, stopped = fake.asked[0]["sampling_params"], fake.asked[-1]["sampling_params"]
    assert (plain["stop"], plain["detokenize"]) == ([], False)
    assert (stopped["stop"], stopped["detokenize"]) == ([string], True)
    assert stopped["include_stop_str_in_output"] and not stopped["skip_special_tokens"]
    assert rollouts.truncated.tolist() == [True, False] * 2
    assert rollouts.texts[1] == policy.tokenizer.decode([70, 70, 71])


def test_lost_requests_are_asked_again_of_a_new_server(
    engine: ServedEngine, fake: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    expected = sampled(engine)
    fake.asked.clear()
    fake.lose = [ServerError("gone")]
    rollouts = sampled(engine)
    assert torch.equal(rollouts.tokens, expected.tokens)
    assert fake.starts == 2
    assert len(fake.asked) == 3  # one of two was lost
    assert "started again: gone" in caplog.text
    assert fake.calls[-2:][0][0] == "/resume"  # the new server has the weights before the request


def test_a_server_whose_worker_hangs_is_replaced(
    engine: ServedEngine, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "PROBE_SECONDS", 0.05)
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
    with engine.sampling(1):
        fake.version = "0"
        with pytest.raises(StaleWeightsError, match="not 1"):
            engine.generate(PROMPTS, REQUEST)
    with pytest.raises(StaleWeightsError, match="within"):
        engine.generate(PROMPTS, REQUEST)


def test_completions_begun_ahead_are_of_the_weights_before(
    engine: ServedEngine, fake: FakeServer, policy: Policy
) -> None:
    with engine.sampling(1):
        engine.begin(PROMPTS, REQUEST)
    with engine.sampling(2):
        other = engine.generate(PROMPTS, replace(REQUEST, seed=[8]))  # such as a validation: of the present weights
        engine.begin(PROMPTS, replace(REQUEST, seed=[9]))  # the next step, before this one is scored
        begun = engine.generate(PROMPTS, REQUEST)
    with engine.sampling(3):
        engine.generate(PROMPTS, replace(REQUEST, seed=[9]))
    assert len(fake.asked) == 6
    assert torch.equal(begun.tokens, other.tokens)
    with torch.no_grad():
        now = policy.token_logprobs(PROMPTS, [0, 0, 1, 1], begun.tokens, begun.mask, 0.5).logprobs
    torch.testing.assert_close(begun.logprobs, now, rtol=0, atol=1e-5)
    torch.testing.assert_close(begun.sampler_logprobs[1], torch.tensor([-1.0, -2.0, -0.5]))  # as the server said


def test_completions_of_weights_two_steps_before_are_refused(engine: ServedEngine) -> None:
    with engine.sampling(1):
        engine.begin(PROMPTS, REQUEST)
        with pytest.raises(RuntimeError, match="are being sampled"):
            engine.begin(PROMPTS, REQUEST)
    with engine.sampling(3), pytest.raises(StaleWeightsError, match="weights 1, not 2"):
        engine.generate(PROMPTS, REQUEST)


def test_what_a_server_loses_during_an_update_has_the_weights_before(engine: ServedEngine, fake: FakeServer) -> None:
    fake.lose = [ServerError("gone")]
    with engine.sampling(1):
        engine.begin(PROMPTS, REQUEST)
    with engine.sampling(2):
        assert engine.generate(PROMPTS, REQUEST).tokens.tolist() == [[70, 70, 70], [70, 70, 71]] * 2
    assert fake.starts == 2
    assert [body["weight_version"] for path, body in fake.calls if path == "/finish_weight_update"] == ["1", "1", "2"]


def test_an_engine_that_is_closed_awaits_no_answer(fake: FakeServer, policy: Policy) -> None:
    engine = ServedEngine(policy, AHEAD)
    with engine.sampling(1):
        fake.hang = True
        engine.begin(PROMPTS[:1], REQUEST)
    assert fake.began.wait(60)
    engine.close()
    assert fake.killed.is_set()
    assert not fake.hang  # the request has ended


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vllm is installed here")
def test_without_vllm_the_message_names_the_package(policy: Policy) -> None:
    with pytest.raises(ModelError, match=r"rollout\.engine: .*pip install 'calibrl\[vllm\]'"):
        ServedEngine(policy, SETTINGS)


def test_a_group_beyond_the_rows_of_a_server_is_several_requests(
    engine: ServedEngine, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM refuses more completions per request than it decodes at the same time, and gives row i the seed + i."""
    request = replace(REQUEST, group_size=5, first_row=10)
    sampled(engine, request)
    whole = fake.asked[0]["sampling_params"]["seed"]
    fake.asked.clear()
    monkeypatch.setattr(engine, "_rows_at_once", 2)
    rollouts = sampled(engine, request)
    parts = sorted((body["sampling_params"] for body in fake.asked), key=lambda one: one["seed"])
    assert [(one["n"], one["seed"] - whole) for one in parts if 0 <= one["seed"] - whole < 5] == [
        (2, 0),
        (2, 2),
        (1, 4),
    ]
    assert rollouts.tokens[:, 2].tolist() == [70, 71, 70, 71, 70] * 2


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
    monkeypatch.setattr(fake, "await_start", fail)
    with pytest.raises(ModelError, match=r"rollout\.engine: .*no such model"):
        ServedEngine(policy, SETTINGS)


def test_weight_files_hold_the_weights_of_the_moment(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibrl_core.rollout.weight_files.FILE_BYTES", 2**20)
    files = WeightFiles(policy, torch.bfloat16, ALONE)
    for version in range(2):  # the second time over the first files
        paths = files.write(version).files
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
        ({"temperature": 2.5}, {}, "permits 2"),
        ({}, {"temperature": 3}, r"validation\.temperature"),
    ],
)
def test_settings_that_a_server_lacks_are_refused(rollout: Any, validation: Any, message: str) -> None:
    data = {"builtin": "digits"}
    given = {"model": {"builtin": "tiny-vlm"}, "data": data, "steps": 1, "validation": {"data": data, **validation}}
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate({**given, "rollout": {"engine": "vllm_server", **rollout}})
    TrainConfig.model_validate({**given, "rollout": rollout})
