"""Measurements that take extra passes run as often as their settings say."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from calibrl_core.config import TrainConfig
from calibrl_core.diagnostics import gradients
from calibrl_core.models.weights import Weights
from calibrl_core.report import EventFile
from calibrl_core.settings.optimizer import OptimizerSettings
from calibrl_core.step.optimizer import GradientStep
from calibrl_core.train import train


def reported(folder: Path, algorithm: str, **diagnostics: int | None) -> list[set[str]]:
    """The names of the metrics of each of two steps."""
    spec: dict[str, Any] = {
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits", "split": "train", "rows": 2},
        "rollout": {"group_size": 2, "max_completion_tokens": 4},
        "prompts_per_step": 2,
        "steps": 2,
        # Unweighted guidance has a gradient even if no rollout differs from its group.
        "algorithm": {
            "type": algorithm,
            "mini_batches": 1,
            **({"rareness_weighting": False} if "cal" in algorithm else {}),
        },
        "diagnostics": diagnostics,
    }
    report = EventFile(folder)
    train(TrainConfig.model_validate(spec), report, lambda: False)
    report.close()
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [{*event["values"]} for event in events if event["type"] == "metrics"]


def test_experts_are_measured_every_so_many_steps(tmp_path: Path) -> None:
    assert ["expert/nll" in names for names in reported(tmp_path / "two", "grpo", experts_every=2)] == [True, False]
    assert ["expert/nll" in names for names in reported(tmp_path / "never", "grpo", experts_every=None)] == [False] * 2


def test_experts_that_the_loss_uses_are_always_measured(tmp_path: Path) -> None:
    found = reported(tmp_path, "calibrl", experts_every=None, gradients_every=None)
    assert ["expert/nll" in names for names in found] == [True, True]
    assert ["loss/guidance_grad_norm" in names for names in found] == [False, False]


def test_gradients_are_compared_every_so_many_steps(tmp_path: Path) -> None:
    found = reported(tmp_path, "calibrl", gradients_every=2)
    assert ["loss/guidance_grad_norm" in names for names in found] == [True, False]


def test_gradients_are_taken_without_a_copy() -> None:
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))

    holder = SimpleNamespace(weights=Weights(), trained={"used": used, "unused": unused})
    step = GradientStep(holder, torch.optim.SGD([used, unused], lr=1.0), OptimizerSettings())  # type: ignore[arg-type]
    (2 * used).sum().backward()
    own = used.grad
    taken = step.take_gradients()
    assert taken[0] is own
    assert taken[1] is None
    assert used.grad is None


def test_gradients_are_compared_in_chunks_and_without_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """(3, 4, 0, 12) and (3, -4, 2, 0) with a parameter that only the second loss moves, and one that none does."""
    monkeypatch.setattr(gradients, "CHUNK", 2)
    policy = [torch.tensor([[3.0, 4.0, 0.0]]), torch.tensor(12.0), None, None]
    guidance = [torch.tensor([[3.0, -4.0, 2.0]]), torch.tensor(0.0), torch.tensor([6.0] * 5), None]
    found = gradients.compare_gradients(policy, guidance)
    assert found["loss/policy_grad_norm"] == 13  # 9 + 16 + 144 = 169
    assert found["loss/guidance_grad_norm"] == pytest.approx(209**0.5)  # 9 + 16 + 4 + 5 x 36
    assert found["loss/guidance_cosine"] == pytest.approx((9 - 16) / (13 * 209**0.5))
    assert found["loss/guidance_opposing_share"] == 0.5
