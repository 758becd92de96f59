"""Tensors that a rollout engine gets from a policy: those of a saved model, a layer at a time."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

from calibrl_core.config import BuiltinModel, LoraSettings
from calibrl_core.models.policy import load_policy
from calibrl_core.models.weights import Weights


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2, alpha=16)], ids=["all weights", "adapters"])
def test_saved_tensors_are_those_of_the_saved_model(tmp_path: Path, lora: Any) -> None:
    policy = load_policy(BuiltinModel(builtin="tiny-vlm", lora=lora))
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if ".lora_B." in name:
                parameter.fill_(0.01)
    policy.save(tmp_path)
    expected = load_file(tmp_path / "model.safetensors")
    found = dict(policy.saved_tensors())
    assert expected.keys() <= found.keys()  # a file holds tied weights once
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_only_one_layer_is_whole_at_a_time() -> None:
    model = torch.nn.ModuleDict(
        {
            "layers": torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(2)),
            "head": torch.nn.Linear(2, 3, bias=False),
        }
    )
    gathered: list[int] = []

    class Counting(Weights):
        def full(self, tensor: torch.Tensor) -> torch.Tensor:
            gathered.append(tensor.numel())
            return tensor

    parts = Counting().parts(model)
    assert next(parts).keys() == {"layers.0.weight", "layers.0.bias"}
    assert gathered == [4, 2]
    assert [list(part) for part in parts] == [["layers.1.weight", "layers.1.bias"], ["head.weight"]]


def test_the_form_of_a_model_has_no_weights(tmp_path: Path) -> None:
    policy = load_policy(BuiltinModel(builtin="tiny-vlm"))
    policy.save_form(tmp_path / "form")
    policy.save(tmp_path / "whole")
    form, whole = ({path.name for path in (tmp_path / name).iterdir()} for name in ("form", "whole"))
    assert whole - form == {"model.safetensors"}
    one, other = (AutoConfig.from_pretrained(tmp_path / name).to_dict() for name in ("form", "whole"))
    assert one["architectures"] == other["architectures"] == ["Idefics3ForConditionalGeneration"]
