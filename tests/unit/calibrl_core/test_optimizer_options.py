"""Options of the optimizer and of the trained weights reach torch and peft; expected numbers are derived by hand."""

import math

import pytest
import torch
from torch import nn

from calibrl_core import config
from calibrl_core.config import BuiltinModel, LoraSettings, PathModel
from calibrl_core.models.adapters import prepare_model
from calibrl_core.models.policy import load_policy
from calibrl_core.settings.optimizer import OptimizerSettings
from calibrl_core.step.optimizer import make_optimizer


def test_the_optimizer_has_the_betas_and_eps_of_its_settings() -> None:
    policy = load_policy(BuiltinModel(builtin="tiny-vlm"))
    settings = OptimizerSettings(lr=0.5, weight_decay=0, beta1=0.5, beta2=0.5, eps=1)
    optimizer = make_optimizer(policy, settings)
    weight = policy.trained["lm_head.weight"]
    start = weight.detach().clone()
    weight.grad = torch.ones_like(weight)
    optimizer.step()  # both means, corrected for their start at 0, are 1: 0.5 * 1 / (1 + 1)
    torch.testing.assert_close(start - weight, torch.full_like(start, 0.25))
    weight.grad = torch.zeros_like(weight)
    optimizer.step()  # both means are 0.25 / 0.75: 0.5 * (1 / 3) / (sqrt(1 / 3) + 1)
    torch.testing.assert_close(start - weight, torch.full_like(start, 0.25 + 0.5 / (math.sqrt(3) + 3)))


@pytest.mark.parametrize(("rslora", "scale"), [(False, 16 / 4), (True, 16 / 2)])
def test_the_scale_of_adapters(rslora: bool, scale: float) -> None:
    policy = load_policy(BuiltinModel(builtin="tiny-vlm", lora=LoraSettings(rank=4, alpha=16, rslora=rslora)))
    assert {layer.scaling["default"] for layer in policy._lora.values()} == {scale}


def test_large_models_recompute_their_activations_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    source = PathModel(path="model")
    assert [source.recomputes(count) for count in (999_999_999, 10**9)] == [False, True]
    never, always = (PathModel(path="model", gradient_checkpointing=value) for value in (False, True))
    assert (never.recomputes(10**12), always.recomputes(1)) == (False, True)
    monkeypatch.setattr(config, "RECOMPUTED_FROM", 2)
    prepare_model(nn.Linear(1, 1), source)  # it has no layers that can: no error, unless the setting requires it
