"""Adapters that vLLM servers load, without vLLM: their names, their files, and what vLLM cannot load.

What a real server does is in tests/process/calibrl_core/test_rollout_contract.py.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from safetensors.torch import load_file

from calibrl_core.config import BuiltinModel, LoraSettings
from calibrl_core.data.schema import Example
from calibrl_core.distributed.ranks import ALONE
from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.rollout import server_layout, vllm_server
from calibrl_core.rollout.adapter_files import AdapterFiles, room_for
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.served import ServedEngine
from calibrl_core.rollout.vllm_server import AdapterError, ServerError, VLLMServer
from calibrl_core.settings.sampling import EngineSettings
from tests.support.fake_vllm import FakeServer

SETTINGS = EngineSettings(engine="vllm_server", batch_tokens=1000)
REQUEST = SamplingRequest(group_size=2, temperature=1.0, max_tokens=3, seed=[7])


def adapted(**lora: Any) -> Policy:
    return load_policy(BuiltinModel(builtin="tiny-vlm", lora=LoraSettings(**{"rank": 4, **lora})))


@pytest.fixture(scope="module")
def policy() -> Policy:
    return adapted()


@pytest.fixture
def fake(policy: Policy, examples: Sequence[Example], monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    server = FakeServer(policy, examples[:2])
    assert policy.lora is not None
    server.layers = policy.lora.layers
    monkeypatch.setattr(server_layout, "VLLMServer", lambda *_: server)
    return server


@pytest.fixture
def start(policy: Policy) -> Iterator[Callable[[], ServedEngine]]:
    started = []

    def run() -> ServedEngine:
        started.append(ServedEngine(policy, SETTINGS))
        return started[-1]

    yield run
    for engine in started:
        engine.close()


def sampled(engine: ServedEngine, examples: Sequence[Example], version: int) -> None:
    with engine.sampling(version):
        engine.generate(examples[:2], REQUEST)


def test_each_update_is_an_adapter_of_a_new_name_and_folder(
    start: Callable[[], ServedEngine], fake: FakeServer, examples: Sequence[Example]
) -> None:
    """Nothing that vLLM computed with an adapter is found under the name of another, also of the same version."""
    engine = start()
    seen = []
    for version in (1, 1, 2):
        sampled(engine, examples, version)
        ((name, folder),) = fake.adapters.items()  # the one before is unloaded
        assert {body["model"] for body in fake.asked} == {name}
        seen.append((name, folder))
        fake.asked.clear()
    assert len({name for name, _ in seen}) == len({folder for _, folder in seen}) == 3
    assert [folder.exists() for _, folder in seen] == [False, False, True]
    paths = [path for path, _ in fake.calls]
    assert paths.count("/v1/load_lora_adapter") == 4  # the first one at the start
    assert "/update_weights" not in paths


def test_a_server_that_is_started_again_loads_the_last_adapter(
    start: Callable[[], ServedEngine], fake: FakeServer, examples: Sequence[Example]
) -> None:
    engine = start()
    sampled(engine, examples, 1)
    fake.lose = [ServerError("gone")]
    sampled(engine, examples, 2)
    assert fake.starts == 2
    assert [name.split("-")[1] for name in fake.adapters] == ["2"]


@pytest.mark.parametrize("layers", [None, 3], ids=["no adapters", "few layers"])
def test_adapters_that_vllm_does_not_apply_in_full_are_merged(
    start: Callable[[], ServedEngine], fake: FakeServer, examples: Sequence[Example], layers: Any, caplog: Any
) -> None:
    fake.layers = layers
    sampled(start(), examples, 1)
    assert "each step passes all weights" in caplog.text
    assert [path for path, _ in fake.calls].count("/update_weights") == 1
    assert all("model" not in body for body in fake.asked)
    assert fake.starts == 2


def test_a_model_without_adapters_in_vllm_gets_merged_weights(
    start: Callable[[], ServedEngine], fake: FakeServer, examples: Sequence[Example]
) -> None:
    fake.fail_start = AdapterError("this model does not support LoRA yet")
    sampled(start(), examples, 1)
    assert [path for path, _ in fake.calls].count("/update_weights") == 1
    assert fake.starts == 2


def test_a_start_that_fails_for_another_reason_is_not_repeated(
    start: Callable[[], ServedEngine], fake: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    fake.fail_start = ServerError("out of memory")
    with pytest.raises(ModelError, match=r"vllm_server does not start with this model: out of memory"):
        start()
    assert fake.starts == 1
    assert "adapters" not in caplog.text


class EndedProcess:
    """A server that has written its log and ended."""

    pid = 1
    log = b""

    def __init__(self, _: Any, stdout: BinaryIO, **more: Any) -> None:
        stdout.write(self.log)

    def wait(self, seconds: float) -> int:
        return 1


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        ("ValueError: Tiny does not support LoRA yet.", AdapterError),
        ("NotImplementedError: LoRA is not supported for such experts", AdapterError),
        ("torch.OutOfMemoryError: CUDA out of memory", ServerError),
    ],
)
def test_the_log_of_a_start_says_if_vllm_lacks_the_adapters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str, kind: type[Exception]
) -> None:
    monkeypatch.setattr(vllm_server, "find_spec", lambda _: True)
    monkeypatch.setattr("subprocess.Popen", EndedProcess)
    monkeypatch.setattr(EndedProcess, "log", f"{cause}\n".encode() + b"x" * 3000)  # far from the end of the log
    monkeypatch.setattr(VLLMServer, "_healthy", lambda _: False)
    server = VLLMServer(tmp_path, 0, [], {})
    server.launch()
    with pytest.raises(ServerError, match="ended at its start: xxx") as caught:
        server.await_start()
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("lora", "room"),
    [
        ({}, 8),
        ({"rank": 33, "rslora": True}, 64),
        ({"rank": 513}, None),
        ({"dora": True}, None),
        ({"targets": ["text_model.layers.0.self_attn.q_proj"]}, 8),
        ({"targets": ["q_proj"]}, None),  # also in the vision tower
    ],
    ids=str,
)
def test_adapters_that_vllm_cannot_load_are_known_before(lora: dict[str, Any], room: int | None) -> None:
    assert room_for(adapted(**lora)) == room


def test_without_adapters_there_is_no_room(examples: Sequence[Example]) -> None:
    assert room_for(load_policy(BuiltinModel(builtin="tiny-vlm"))) is None


def test_the_files_have_the_weights_without_and_the_adapter_alone(policy: Policy) -> None:
    files = AdapterFiles(policy, torch.float32, ALONE)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if ".lora_B." in name:
                parameter.fill_(0.01)
    update = files.write(3)
    base = {name: tensor for path in files.form for name, tensor in load_file(path).items()}
    plain = load_policy(BuiltinModel(builtin="tiny-vlm")).saved_tensors()
    assert all(torch.equal(base[name], tensor) for name, tensor in plain)
    adapter = load_file(update.folder / "adapter_model.safetensors")
    assert len(adapter) == 2 * update.layers
    assert all((tensor == 0.01).all() for name, tensor in adapter.items() if "lora_B" in name)
    files.close()
    assert not update.folder.exists()
