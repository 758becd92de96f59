"""Servers that all processes of a run ask: who starts them, which prompts they get, and which GPUs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import torch
from pydantic import ValidationError

from calibrl_core.data.schema import Example
from calibrl_core.distributed.ranks import ALONE, LaunchError, Ranks
from calibrl_core.models.policy import Policy
from calibrl_core.rollout import server_layout
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.served import ServedEngine
from calibrl_core.rollout.server_layout import ServerFolder, beside_policy, vllm_arguments
from calibrl_core.rollout.vllm_server import ServerError, VLLMServer
from calibrl_core.settings.sampling import EngineSettings
from tests.support.fake_vllm import FakeServer

TWO = EngineSettings(engine="vllm_server", batch_tokens=1000, server_gpus=2)
REQUEST = SamplingRequest(group_size=2, temperature=0.5, max_tokens=3, seed=[7], first_row=4)
NO_FILES: Any = SimpleNamespace(form=())
T = TypeVar("T")


class SecondOfTwo(Ranks):
    """The second of two processes on a machine; the first one's folder of servers is `folder`."""

    rank, world = 1, 2

    def __init__(self, folder: Path, host: str | None = None) -> None:
        self._folder, self._host = folder, host

    def from_first(self, value: T) -> T:
        return self._folder  # type: ignore[return-value]

    def gather_everywhere(self, value: T) -> list[T]:
        return [value if self._host is None else self._host, value]  # type: ignore[list-item]


@pytest.fixture
def prompts(examples: list[Example]) -> list[Example]:
    return examples[:2]


@pytest.fixture
def fakes(policy: Policy, prompts: list[Example], monkeypatch: pytest.MonkeyPatch) -> list[FakeServer]:
    servers = [FakeServer(policy, prompts), FakeServer(policy, prompts)]
    monkeypatch.setattr(server_layout, "VLLMServer", lambda _, number, *__: servers[number])
    return servers


def test_prompts_go_to_servers_by_their_number_in_the_step(
    policy: Policy, fakes: list[FakeServer], prompts: list[Example]
) -> None:
    engine = ServedEngine(policy, TWO)
    with engine.sampling(1):
        whole = engine.generate(prompts, REQUEST)  # from row 4, so prompts 2 and 3
        (even,), (odd,) = (server.asked for server in fakes)
        part = engine.generate(prompts[1:], replace(REQUEST, first_row=6))
    engine.close()
    assert odd == fakes[1].asked[1] != even
    assert whole.texts[2:] == part.texts
    assert [server.version for server in fakes] == ["1", "1"]


def test_only_the_first_process_starts_common_servers(
    policy: Policy, fakes: list[FakeServer], prompts: list[Example], tmp_path: Path
) -> None:
    engine = ServedEngine(policy, TWO, SecondOfTwo(tmp_path))
    with engine.sampling(1):
        assert [server.starts for server in fakes] == [0, 0]
        assert [path for server in fakes for path, _ in server.calls] == []
        fakes[0].version = fakes[1].version = "1"  # from the first process
        fakes[1].lose = [ServerError("gone")]
        engine.generate(prompts, REQUEST)
    assert [server.starts for server in fakes] == [0, 1]  # any process replaces a server that fails
    assert fakes[1].version == "1"
    engine.close()
    assert tmp_path.exists()


def test_a_server_that_another_process_replaced_is_asked_again(
    policy: Policy, fakes: list[FakeServer], prompts: list[Example], tmp_path: Path
) -> None:
    engine = ServedEngine(policy, TWO, SecondOfTwo(tmp_path))
    with engine.sampling(1):
        fakes[0].version = fakes[1].version = "1"  # from the first process
        fakes[1].replaced = True
        engine.generate(prompts, REQUEST)
    engine.close()
    assert [server.starts for server in fakes] == [0, 0]
    assert [len(server.asked) for server in fakes] == [1, 1]


def test_new_weights_reach_a_server_that_another_process_replaced(
    policy: Policy, fakes: list[FakeServer], prompts: list[Example]
) -> None:
    engine = ServedEngine(policy, TWO)
    fakes[1].replaced = True
    with engine.sampling(1):
        engine.generate(prompts, REQUEST)
    engine.close()
    assert [(server.starts, server.version) for server in fakes] == [(1, "1"), (1, "1")]


def test_a_process_learns_of_starts_by_others_under_the_lock(tmp_path: Path) -> None:
    server = VLLMServer(tmp_path, 0, [], {})
    with server.locked():
        assert not server.renewed()
    (tmp_path / "server-0.starts").write_text("11\n12\n")
    assert server.starts == 0
    with server.locked():
        assert server.renewed()
        assert not server.renewed()
    assert (server.starts, server.socket.name) == (2, "server-0-02.sock")


@pytest.fixture
def on_gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that gives the GPUs of each server, for a machine with some GPUs."""

    def gpus(count: int, settings: dict[str, Any], ranks: Ranks = ALONE) -> list[str]:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: ranks.rank)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=index))
        policy: Any = SimpleNamespace(device=torch.device("cuda"), save_form=lambda _: None)
        folder = ServerFolder(policy, EngineSettings(engine="vllm_server", **settings), ranks, NO_FILES)
        return [one["CUDA_VISIBLE_DEVICES"] for one in folder._gpus()]

    return gpus


def test_servers_apart_have_the_last_gpus(on_gpus: Callable[..., Any], tmp_path: Path) -> None:
    two: Sequence[Any] = (SecondOfTwo(tmp_path),)
    assert on_gpus(4, {"server_gpus": 2}, *two) == ["GPU-2", "GPU-3"]
    assert on_gpus(4, {"server_gpus": 2, "tensor_parallel": 2}, *two) == ["GPU-2,GPU-3"]
    assert on_gpus(2, {}, *two) == ["GPU-1"]  # beside its process
    with pytest.raises(LaunchError, match=r"rollout\.server_gpus: 3 GPUs beside those of 2 processes"):
        on_gpus(4, {"server_gpus": 3}, *two)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"server_gpus": 3, "tensor_parallel": 2}, r"tensor_parallel: 2 must divide server_gpus \(3\)"),
        ({"tensor_parallel": 2}, r"tensor_parallel: 2 must divide server_gpus \(none\)"),
        ({"engine": "shared_prefill", "server_gpus": 1}, "server_gpus: only the engine vllm_server has servers"),
    ],
)
def test_gpus_that_no_server_can_use_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EngineSettings.model_validate({"engine": "vllm_server", **settings})


def test_vllm_gets_less_of_a_gpu_than_the_policy_leaves_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (20, 80))
    arguments = beside_policy(torch.device("cuda"))
    assert 0 < arguments["gpu_memory_utilization"] * 80 <= 20
    assert arguments["enable_sleep_mode"] is True
    assert beside_policy(torch.device("cpu")) == {}


def test_a_server_on_a_cpu_never_computes_a_part_of_a_prompt(policy: Policy) -> None:
    """vLLM would end: it takes back the draw of such a row from its seed, which a CPU cannot."""
    longest = policy.model.config.get_text_config().max_position_embeddings
    for batch_tokens, tokens in ((1, longest), (100_000, 100_000)):
        arguments = vllm_arguments(policy, batch_tokens)
        assert arguments["max_num_batched_tokens"] >= tokens
        held = arguments["kv_cache_memory_bytes"] / vllm_arguments(policy, 1)["kv_cache_memory_bytes"]
        passed = arguments["max_num_batched_tokens"] / vllm_arguments(policy, 1)["max_num_batched_tokens"]
        assert held == passed  # rows without memory wait, so no more tokens are in a pass


def test_the_engine_that_was_removed_is_refused_with_the_other() -> None:
    with pytest.raises(ValidationError, match="removed; use vllm_server"):
        EngineSettings.model_validate({"engine": "vllm"})


def test_common_servers_of_several_machines_are_refused(policy: Policy, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"rollout\.server_gpus: .* several machines"):
        ServerFolder(policy, TWO, SecondOfTwo(tmp_path, host="elsewhere"), NO_FILES)
