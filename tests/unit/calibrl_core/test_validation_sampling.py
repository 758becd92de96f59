"""Sampling of validation: its own settings, greedy, and before training."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from calibrl_core.data.schema import Example
from calibrl_core.evaluation import expert_probe
from calibrl_core.evaluation.expert_probe import ExpertProbe
from calibrl_core.report import EventFile
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.settings.sampling import RolloutSettings
from calibrl_core.settings.validation import ValidationSettings
from calibrl_core.train import train
from tests.support.training import DIGITS, config, of_type

TRAINING = RolloutSettings(temperature=0.8, top_p=0.9, top_k=40, min_p=0.1, repetition_penalty=1.2, stop=("x",))


def test_validation_samples_as_training_does_by_default() -> None:
    assert ValidationSettings().rollout(TRAINING) == TRAINING
    assert not ValidationSettings().before_training


def test_each_setting_of_validation_replaces_that_of_training() -> None:
    filters = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    own = {"temperature": 0.0, **filters, "stop": ("y", "z"), "max_completion_tokens": 7}
    found = ValidationSettings(samples=1, **own).rollout(TRAINING)
    assert found.model_dump() == TRAINING.model_dump() | own
    assert ValidationSettings(stop=()).rollout(TRAINING).stop == ()


def test_several_greedy_samples_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"samples is 8, .* set samples to 1"):
        ValidationSettings(temperature=0)


def test_a_validation_before_training_is_step_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: Any = []
    generate = SharedPrefillEngine.generate

    def recording(self: Any, examples: Any, request: Any) -> Any:
        requests.append(request)
        return generate(self, examples, request)

    monkeypatch.setattr(SharedPrefillEngine, "generate", recording)
    monkeypatch.setattr("calibrl_core.run.model_check.check_model", lambda *given: 0.0)
    greedy = {"data": DIGITS, "samples": 1, "temperature": 0, "max_completion_tokens": 3, "every_steps": 9}
    settings = config(
        algorithm={"type": "sft"}, steps=1, validation={**greedy, "before_training": True, "stop_at_accuracy": 1e-9}
    )
    report = EventFile(tmp_path)
    stopped = train(settings, report, lambda: True)
    assert (stopped["status"], stopped["step"]) == ("stopped", 0)
    assert train(settings, report, lambda: False)["status"] == "succeeded"
    metrics = of_type(tmp_path, "metrics")
    assert [event["step"] for event in metrics] == [0, 0, 1]  # again, because the run stopped before its first step
    first, again = ({**event["values"], "perf/validation_seconds": 0} for event in metrics[:2])
    assert first == again
    assert "validation/accuracy" in metrics[0]["values"]
    assert {(one.temperature, one.max_tokens, one.group_size) for one in requests} == {(0, 3, 1)}
    train(settings, report, lambda: False)
    assert len(of_type(tmp_path, "metrics")) == 3  # the resumed run is past its start
    assert all(event["step"] == 1 for event in of_type(tmp_path, "checkpoint"))
    report.close()


@pytest.mark.parametrize(("temperature", "scored_at"), [(None, 1.5), (0.5, 0.5), (0, 1.0)])
def test_the_probe_scores_experts_at_the_temperature_of_validation(
    temperature: float | None, scored_at: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    temperatures = []

    def scored(*given: Any) -> Any:
        temperatures.append(given[-1])
        return torch.zeros(1, 1), torch.zeros(1, 1)

    monkeypatch.setattr(expert_probe, "logprobs_in_parts", scored)
    mask = torch.ones((1, 1), dtype=torch.bool)
    policy: Any = SimpleNamespace(tokenize_experts=lambda examples, limit: (mask.long(), mask))
    settings = config(
        rollout={"temperature": 1.5}, validation={"data": DIGITS, "samples": 1, "temperature": temperature}
    )
    ExpertProbe([Example("a", "?", "1", expert="e")], settings).measure(policy, np.zeros((1, 1)))
    assert temperatures == [scored_at]
