"""Properties of the vLLM engine only: its own weights, little memory, other models; and training with it.

`make test-vllm` runs these in their own environment; elsewhere they are skipped. The contract of all engines is
in test_rollout_contract.py.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, Qwen2Config

from calibrl_core.config import BuiltinModel, LoraSettings, TrainConfig
from calibrl_core.data.schema import Example
from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.report import EventFile
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.rollout.vllm import StaleWeightsError, VLLMEngine, beside_policy
from calibrl_core.train import train

PLENTY = 10_000
# Heads of 32; and not too wide a range of logits, which float32 would round more coarsely, in either engine.
WIDE = {"hidden_size": 128, "max_position_embeddings": 512, "initializer_range": 0.06}
installed = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed here: make test-vllm")


@pytest.fixture
def start() -> Iterator[Any]:
    """Starts engines, and closes them."""
    started = []

    def run(*given: Any) -> Any:
        started.append(VLLMEngine(*given))
        return started[-1]

    yield run
    for engine in started:
        engine.close()


def assert_agree(vllm: Any, own: Any) -> None:
    assert torch.equal(vllm.tokens, own.tokens)
    torch.testing.assert_close(vllm.logprobs, own.logprobs, rtol=0, atol=2e-5)


def asked(engine: SharedPrefillEngine, examples: list[Example], **changed: Any) -> Any:
    settings = {"group_size": 4, "temperature": 1.0, "max_tokens": 12, "seed": [5], **changed}
    with engine.sampling(0):
        return engine.generate(examples, SamplingRequest(**settings))


@installed
def test_weights_that_did_not_arrive_are_refused(
    start: Any, policy: Policy, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start(policy, PLENTY)
    asked(engine, examples)
    monkeypatch.setattr("calibrl_core.rollout.vllm._load", lambda *_: None)
    with pytest.raises(StaleWeightsError, match=r"weights \[1\], not with the policy's \(2\)"):
        asked(engine, examples)


@installed
def test_rows_that_do_not_fit_in_memory_are_started_again(start: Any, policy: Policy, examples: list[Example]) -> None:
    """Room for one row of 512 tokens, so that most of 16 rows of 200 must wait or are thrown out half-way."""
    from vllm.v1.core.sched.scheduler import Scheduler

    thrown = []
    plain = Scheduler._preempt_request

    def counting(self: Any, request: pytest.FixtureRequest, *rest: Any, **named: Any) -> Any:
        thrown.append(request)
        return plain(self, request, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scheduler, "_preempt_request", counting)
        patch.setattr(policy, "stop_ids", frozenset([5]))
        engine = start(policy, 512)
        little = asked(engine, examples[:4], max_tokens=200)
        assert thrown
        assert_agree(little, asked(SharedPrefillEngine(policy), examples[:4], max_tokens=200))


@installed
@pytest.mark.parametrize(
    "config_class, settings",
    [(LlamaConfig, {}), (Qwen2Config, {"tie_word_embeddings": True})],
    ids=["llama", "qwen2, tied"],
)
def test_text_models(
    start: Any,
    text_policy: Callable[..., Any],
    text_examples: list[Example],
    config_class: Any,
    settings: dict[str, Any],
) -> None:
    policy = text_policy(config_class, **WIDE, **settings)
    engine, own = start(policy, PLENTY), SharedPrefillEngine(policy)
    assert_agree(asked(engine, text_examples), asked(own, text_examples))
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.5)
    assert_agree(asked(engine, text_examples), asked(own, text_examples))


@installed
def test_adapters_are_sampled_from(start: Any, examples: list[Example]) -> None:
    policy = load_policy(BuiltinModel(builtin="tiny-vlm", lora=LoraSettings(rank=4, alpha=16)))
    engine, own = start(policy, PLENTY), SharedPrefillEngine(policy)
    fresh = asked(engine, examples)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    adapted = asked(engine, examples)
    assert fresh.texts != adapted.texts
    assert_agree(adapted, asked(own, examples))


@installed
def test_another_image_changes_the_logprobs(start: Any, policy: Policy, examples: list[Example]) -> None:
    engine = start(policy, PLENTY)
    other = [dataclasses.replace(examples[0], images=examples[1].images)]
    assert examples[0].images != examples[1].images
    one, two = asked(engine, examples[:1], temperature=0), asked(engine, other, temperature=0)
    assert not torch.equal(one.logprobs, two.logprobs)
    assert_agree(two, asked(SharedPrefillEngine(policy), other, temperature=0))


@installed
def test_more_memory_than_there_is_is_refused(policy: Policy) -> None:
    with pytest.raises(ModelError, match=r"rollout\.batch_tokens"):
        VLLMEngine(policy, 10**12)


def config(**changes: Any) -> Any:
    given = {
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits", "split": "train", "rows": 6},
        "algorithm": {"type": "calibrl", "mini_batches": 2},
        "rollout": {"group_size": 3, "max_completion_tokens": 8, "batch_tokens": PLENTY, "engine": "vllm"},
        "optimizer": {"lr": 1e-3},
        "validation": {"data": {"builtin": "digits", "split": "validation", "rows": 2}, "samples": 2},
        "prompts_per_step": 4,
        "steps": 3,
        "checkpoints": {"every_steps": 2},
    }
    return TrainConfig.model_validate(given | changes)


def trained(folder: Path, settings: Any, stop_after: Any = None) -> Any:
    report = EventFile(folder)
    steps = iter(range(100))
    result = train(settings, report, lambda: stop_after is not None and next(steps) >= stop_after)
    report.close()
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    metrics = [event["values"] for event in lines if event["type"] == "metrics"]
    return load_file(f"{result['result']['last_checkpoint']}/model.safetensors"), metrics


@installed
def test_training_samples_from_every_steps_weights_and_resumes(tmp_path: Path, rewarding: Any) -> None:
    """Were a step's weights not handed over, the divergence would be that of an update at this rate: 0.3 nats."""
    whole, metrics = trained(tmp_path / "whole", config())
    assert len(metrics) == 3
    compared = [values["kl/sampler"] for values in metrics if "kl/sampler" in values]  # not if no row has a weight
    assert compared
    assert max(compared) < 1e-9
    assert all(values["clip/sampler_share"] == 0 for values in metrics)
    assert metrics[-1]["loss/grad_norm"] > 0
    assert metrics[-1]["perf/rescore_seconds"] > 0
    rollout = {**config().rollout.model_dump(), "engine": "shared_prefill"}
    own, of_own = trained(tmp_path / "own", config(rollout=rollout))
    assert "clip/sampler_share" not in of_own[0]
    for name, tensor in own.items():
        torch.testing.assert_close(whole[name], tensor, rtol=0, atol=1e-4)
    trained(tmp_path / "parts", config(), stop_after=2)
    resumed, _ = trained(tmp_path / "parts", config())
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_vllm_gets_less_of_a_gpu_than_the_policy_leaves_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (20, 80))
    arguments = beside_policy(torch.device("cuda"))
    assert 0 < arguments["gpu_memory_utilization"] * 80 <= 20
    assert arguments["enable_sleep_mode"] is True
    assert beside_policy(torch.device("cpu")) == {}


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vllm is installed here")
def test_without_vllm_the_message_names_the_package(policy: Policy) -> None:
    with pytest.raises(ModelError, match=r"pip install 'calibrl\[vllm\]'"):
        VLLMEngine(policy, PLENTY)
