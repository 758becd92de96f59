"""The choice of attention kernels reaches all parts of a model, or is refused with the reason."""

import pytest
import torch

from calibrl_core.config import BuiltinModel, TrainConfig
from calibrl_core.data.schema import Example
from calibrl_core.models.errors import ModelError
from calibrl_core.models.loading import load_model
from calibrl_core.models.policy import load_policy
from calibrl_core.rollout.self_check import check_model


@pytest.mark.parametrize(("name", "expected"), [("sdpa", "sdpa"), ("flex", "flex_attention")])
def test_all_parts_of_a_model_get_the_attention(monkeypatch: pytest.MonkeyPatch, name: str, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model, _ = load_model(BuiltinModel.model_validate({"builtin": "tiny-vlm", "attention": name}))
    parts = (model.config, model.config.text_config, model.config.vision_config)
    assert {one._attn_implementation for one in parts} == {expected}


def test_kernels_without_their_gpu_or_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("flex", "flash_attention_2"):
        source = BuiltinModel.model_validate({"builtin": "tiny-vlm", "attention": name})
        with pytest.raises(ModelError, match=rf"model\.attention: {name} needs a GPU.*use model\.attention: auto"):
            load_model(source)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ModelError, match=r"model\.attention: flash_attention_2 cannot be used here: .*use model\."):
        load_model(source)  # the package is missing


def test_flash_attention_in_float32_is_refused() -> None:
    settings = {"model": {"path": "/m", "attention": "flash_attention_2"}, "data": {"path": "/d.jsonl"}, "steps": 1}
    assert TrainConfig.model_validate(settings).precision == "auto"
    with pytest.raises(
        ValueError, match=r"model\.attention: flash_attention_2 computes in bfloat16 only; set precision"
    ):
        TrainConfig.model_validate(settings | {"precision": "float32"})


def test_the_check_of_a_model_passes_with_named_kernels(examples: list[Example]) -> None:
    policy = load_policy(BuiltinModel(builtin="tiny-vlm", attention="sdpa"))
    assert policy.shares_prompts
    check_model(policy, examples)
