"""Each two options of a run work together, or are refused together with a message that names both."""

import copy
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from calibrl_core.config import TrainConfig
from calibrl_core.report import EventFile
from calibrl_core.train import train
from calibrl_core.verifiers.scorer import Scorer
from tests.support.training import DIGITS, config, of_type, score_by_hash

LORA = {"rank": 2}
# Changes of the config.
OPTIONS: Mapping[str, dict[str, Any]] = {
    "lora": {"model": {"lora": LORA}},
    "dora": {"model": {"lora": {**LORA, "dora": True}}},
    "dropout": {"model": {"lora": {**LORA, "dropout": 0.2}}},
    "quantization": {"model": {"lora": LORA, "quantization": "nf4"}},
    "freeze_vision": {"model": {"freeze_vision": True}},
    "gradient_checkpointing": {"model": {"gradient_checkpointing": True}},
    "flash_attention_2": {"model": {"attention": "flash_attention_2"}},
    "float32": {"precision": "float32"},
    "bfloat16": {"precision": "bfloat16"},
    "adamw_8bit": {"optimizer": {"lr": 1e-3, "kind": "adamw_8bit"}},
    "kl_coef": {"algorithm": {"type": "grpo", "mini_batches": 1, "kl_coef": 0.1}},
    "entropy_coef": {"algorithm": {"type": "grpo", "mini_batches": 1, "entropy_coef": 0.01}},
    "epochs_per_step": {"algorithm": {"type": "grpo", "mini_batches": 1, "epochs_per_step": 2}},
    "mini_batch_rows": {"algorithm": {"type": "grpo", "mini_batch_rows": 3}},
    "sft": {"algorithm": {"type": "sft"}},
    "dapo": {"algorithm": {"type": "dapo", "mini_batches": 1, "max_resamples": 1}},
    "luffy": {"algorithm": {"type": "luffy", "mini_batches": 1}},
    "chord": {"algorithm": {"type": "chord", "mini_batches": 1}},
    "fsdp": {"parallel": "fsdp"},
    "measured": {"curriculum": "measured"},
    "top_p": {"rollout": {"top_p": 0.9, "repetition_penalty": 1.1}},
    "stop": {"rollout": {"stop": ["e"]}},
    "sequence_mask": {"rollout": {"importance_correction": "sequence_mask"}},
    "none": {"rollout": {"importance_correction": "none"}},
    "temperature": {"rollout": {"temperature": 3.0}},
    "vllm_server": {"rollout": {"engine": "vllm_server"}},
    "max_staleness": {"rollout": {"engine": "vllm_server", "max_staleness": 1}},
    "greedy": {"validation": {"data": DIGITS, "samples": 1, "temperature": 0, "before_training": True}},
}
# Words of which a refusal has one, if it cannot have the name above.
WORDS = {
    "float32": ("precision",),
    "fsdp": ("parallel",),
    "measured": ("curriculum",),
    "none": ("importance_correction",),
    "max_staleness": ("max_staleness", "vllm_server"),
}
NEEDS = {"quantization": "bitsandbytes", "adamw_8bit": "torchao"}
NOT_HERE = ("flash_attention_2", "vllm_server", "max_staleness")  # only checked: no GPU, no vLLM


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return both changes; None if they set a field to different values."""
    result: dict[str, Any] = copy.deepcopy(dict(one))
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            if (value := merged(result[key], value)) is None:
                return None
        elif result.get(key, value) != value:
            return None
        result[key] = value
    return result


def settings(changes: Mapping[str, Any]) -> TrainConfig:
    sizes = {"rollout": {"group_size": 2, "max_completion_tokens": 3}, "model": {"builtin": "tiny-vlm"}}
    complete = merged(sizes, changes)
    assert complete is not None
    made: TrainConfig = config(**{"algorithm": {"type": "grpo", "mini_batches": 1}, "steps": 1, **complete})
    return made


def missing(*options: str) -> bool:
    return any(find_spec(NEEDS.get(option, "torch")) is None for option in options)


def trains(changed: TrainConfig, folder: Path) -> bool:
    report = EventFile(folder)
    with torch.compiler.set_stance("force_eager"):  # compiling the kernels of adamw_8bit takes a minute
        ended = train(changed, report, lambda: False)
    report.close()
    (checkpoint,) = of_type(folder, "checkpoint")
    return bool(ended["status"] == "succeeded" and checkpoint["step"] == 1)


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_works_with_each_later_one_or_both_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setattr(Scorer, "grade", score_by_hash)
    settings(OPTIONS[option])  # alone it is accepted
    for other in [second for first, second in combinations(OPTIONS, 2) if first == option]:
        changes = merged(OPTIONS[option], OPTIONS[other])
        if changes is None:
            continue
        try:
            changed = settings(changes)
        except ValidationError as refusal:
            messages = " ".join(error["msg"] for error in refusal.errors())
            for one in (option, other):
                assert any(word in messages for word in WORDS.get(one, (one,))), f"{option}, {other}: {messages}"
        else:
            if not missing(option, other) and not {option, other} & {*NOT_HERE}:
                assert trains(changed, tmp_path / other), f"{option}, {other}"
