"""The choice of attention kernels reaches all parts of a model, or is refused with the reason; flex computes what sdpa
does, with packs as well. Here torch runs flex without compiled kernels, which need a GPU.
"""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers.integrations.flex_attention
import transformers.masking_utils
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from transformers import Qwen2Config

from calibrl_core.config import BuiltinModel, ModelOptions, TrainConfig
from calibrl_core.data.schema import Example
from calibrl_core.models.attention import set_kernels
from calibrl_core.models.errors import ModelError
from calibrl_core.models.loading import load_model
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.rollout.self_check import check_model


@pytest.mark.parametrize(("name", "expected"), [("sdpa", "sdpa"), ("flex", "flex_attention")])
def test_all_parts_of_a_model_get_the_attention(monkeypatch: pytest.MonkeyPatch, name: str, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model, _ = load_model(BuiltinModel.model_validate({"builtin": "tiny-vlm", "attention": name}))
    parts = (model.config, model.config.text_config, model.config.vision_config)
    assert {one._attn_implementation for one in parts} == {expected}


def test_the_vision_tower_can_have_kernels_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for settings, text, vision in (
        ({"vision_attention": "flex"}, "sdpa", "flex_attention"),
        ({"attention": "flex", "vision_attention": "sdpa"}, "flex_attention", "sdpa"),
    ):
        model, _ = load_model(BuiltinModel.model_validate({"builtin": "tiny-vlm", **settings}))
        parts = (model.config.text_config, model.config.vision_config)
        assert [one._attn_implementation for one in parts] == [text, vision]


def test_vision_kernels_of_a_text_model_are_refused(text_policy: Callable[..., Policy]) -> None:
    with pytest.raises(ModelError, match=r"model\.vision_attention: this model has no vision tower; remove the field"):
        set_kernels(text_policy(Qwen2Config).model, ModelOptions(vision_attention="sdpa"))


def test_kernels_without_their_gpu_or_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("flex", "flash_attention_2"):
        source = BuiltinModel.model_validate({"builtin": "tiny-vlm", "attention": name})
        with pytest.raises(ModelError, match=rf"model\.attention: {name} needs a GPU.*use model\.attention: auto"):
            load_model(source)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ModelError, match=r"model\.attention: flash_attention_2 cannot be used here: .*use model\."):
        load_model(source)  # the package is missing
    source = BuiltinModel(builtin="tiny-vlm", vision_attention="flash_attention_2")
    with pytest.raises(ModelError, match=r"flash_attention_2 cannot be used here: .*; remove model\.vision_attention"):
        load_model(source)


@pytest.mark.parametrize("field", ["attention", "vision_attention"])
def test_flash_attention_in_float32_is_refused(field: str) -> None:
    settings = {"model": {"path": "/m", field: "flash_attention_2"}, "data": {"path": "/d.jsonl"}, "steps": 1}
    assert TrainConfig.model_validate(settings).precision == "auto"
    with pytest.raises(
        ValueError, match=rf"model\.{field}: flash_attention_2 computes in bfloat16 only; set precision"
    ):
        TrainConfig.model_validate(settings | {"precision": "float32"})


def test_the_check_of_a_model_passes_with_named_kernels(examples: list[Example]) -> None:
    policy = load_policy(BuiltinModel(builtin="tiny-vlm", attention="sdpa"))
    assert policy.shares_prompts
    check_model(policy, examples)


@pytest.fixture
def flex(monkeypatch: pytest.MonkeyPatch) -> Policy:
    """The tiny model with flex, without compiled kernels."""

    def uncompiled(query: Tensor, key: Tensor, value: Tensor, training: bool, **options: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
            return flex_attention(query, key, value, **options)

    def uncompiled_mask(*arguments: Any, _compile: bool, **options: Any) -> Any:
        return create_block_mask(*arguments, **options)

    monkeypatch.setattr(transformers.integrations.flex_attention, "compile_friendly_flex_attention", uncompiled)
    monkeypatch.setattr(transformers.masking_utils, "create_block_mask", uncompiled_mask)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        loaded = load_model(BuiltinModel(builtin="tiny-vlm", attention="flex"))
    return Policy(*loaded, device=torch.device("cpu"))


@pytest.mark.slow  # torch compiles
@torch.no_grad()  # torch has no gradient of flex on a CPU
def test_flex_gives_packs_the_logprobs_of_sdpa(flex: Policy, examples: list[Example]) -> None:
    dense = load_policy(BuiltinModel(builtin="tiny-vlm", attention="sdpa"))
    tokens = torch.randint(20, 90, (5, 70), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(70) < torch.tensor([70, 3, 40, 0, 65])[:, None]
    assert flex.shares_prompts
    ours, expected = (one.logprobs(examples[:2], [0, 0, 0, 1, 1], tokens, mask, 1.0) for one in (flex, dense))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
