"""Does a policy look at its images? Planted: a blind policy, whose image features are zeroed."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from calibrl_core.config import BuiltinModel, EvaluateConfig
from calibrl_core.data.changed_images import ChangedImages
from calibrl_core.data.schema import Example
from calibrl_core.diagnostics.base import ImageGains, StepBatch
from calibrl_core.diagnostics.image import image
from calibrl_core.evaluate import evaluate
from calibrl_core.health import HealthMonitor
from calibrl_core.health.settings import HealthSettings
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.report import EventFile
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.step.gather import _concatenate_batches
from calibrl_core.step.image_gains import image_gains
from calibrl_core.train import train
from tests.support.training import config, of_type

TINY = BuiltinModel(builtin="tiny-vlm")


@pytest.fixture(scope="module")
def blind() -> Policy:
    """A fresh tiny model whose image features are 0, whatever the image shows."""
    policy = load_policy(TINY)
    connector = policy.model.model.connector
    with torch.no_grad():
        for parameter in connector.parameters():
            parameter.zero_()
    return policy


def pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_each_change_does_what_its_name_says(examples: Sequence[Example]) -> None:
    own = pixels(examples[0].images[0])
    blank, shuffled, swapped = (
        pixels(ChangedImages(examples, change)[0].images[0]) for change in ("blank", "shuffle", "swap")
    )
    assert blank.shape == shuffled.shape == own.shape
    assert np.unique(blank).tolist() == [127]
    assert np.array_equal(np.sort(shuffled, axis=None), np.sort(own, axis=None))
    assert not np.array_equal(shuffled, own)
    assert np.array_equal(swapped, pixels(examples[1].images[0]))
    last = ChangedImages(examples, "swap")[len(examples) - 1]
    assert last.images == examples[0].images
    assert ChangedImages(examples, "shuffle")[0] == ChangedImages(examples, "shuffle")[0]


def test_examples_that_cannot_be_changed_stay(examples: Sequence[Example]) -> None:
    text = replace(examples[0], images=())
    assert ChangedImages([text, examples[0]], "blank")[0] == text
    assert ChangedImages([text, examples[0], examples[0]], "swap")[1] == examples[0]  # no other image
    buffer = io.BytesIO()
    Image.new("RGB", (3, 9), "red").save(buffer, "PNG")
    small = replace(examples[0], images=(buffer.getvalue(),))
    assert ChangedImages([small], "shuffle")[0] == small  # no tiles


def gains_of(policy: Policy, examples: Sequence[Example], **changes: Any) -> Any:
    request = SamplingRequest(group_size=2, temperature=1.0, max_tokens=6, seed=[3])
    rollouts = SharedPrefillEngine(policy).generate(examples, request)
    rewards = torch.zeros((len(examples), 2), dtype=torch.float64)
    return rollouts, image_gains(policy, examples, rollouts, rewards, config(**changes))


def test_the_gain_is_the_difference_of_two_log_probabilities(policy: Policy, examples: Sequence[Example]) -> None:
    rollouts, gains = gains_of(policy, examples[:2])
    row = 2  # the second prompt's first completion
    shown = [ChangedImages(examples[:2], "swap")[1]]
    with torch.no_grad():
        changed = policy.logprobs(shown, [0], rollouts.tokens[row, None], rollouts.mask[row, None], temperature=1.0)
    expected = (rollouts.logprobs[row] - changed[0])[rollouts.mask[row]]
    assert gains.swap[row][rollouts.mask[row]].tolist() == pytest.approx(expected.tolist(), abs=2e-5)
    assert expected.abs().max() > 1e-4


def test_a_blind_policy_has_no_gain_and_a_seeing_one_has(
    blind: Policy, policy: Policy, examples: Sequence[Example]
) -> None:
    rollouts, gains = gains_of(blind, examples)
    for change in (gains.blank, gains.shuffle, gains.swap):
        assert change[rollouts.mask].abs().max() < 1e-5
        assert change[~rollouts.mask].isnan().all()
    rollouts, gains = gains_of(policy, examples)
    for change in (gains.blank, gains.shuffle, gains.swap):
        assert change[rollouts.mask].abs().max() > 1e-4


def test_prompts_without_images_have_no_gain(policy: Policy, examples: Sequence[Example]) -> None:
    text = [replace(one, images=(), question=one.question.replace("<image>", "")) for one in examples[:2]]
    assert gains_of(policy, text)[1] is None
    rollouts, gains = gains_of(policy, [text[0], examples[1]])
    assert gains.swap.isnan().all()  # the only image has no other to be swapped with
    assert gains.blank[:2].isnan().all()
    assert not gains.blank[2:][rollouts.mask[2:]].isnan().any()


def with_gains(batch: StepBatch, values: Sequence[Sequence[float]]) -> StepBatch:
    """A batch whose first rows have these gains; the others are not measured."""
    gains = torch.full(batch.rollouts.mask.shape, float("nan"))
    for row, numbers in enumerate(values):
        gains[row, : len(numbers)] = torch.tensor(numbers)
    mask = ~gains.isnan() | batch.rollouts.mask
    return replace(batch, rollouts=replace(batch.rollouts, mask=mask), image_gains=ImageGains(gains, gains, 2 * gains))


def test_the_metric_is_the_mean_over_completions_of_their_sum(batch: StepBatch) -> None:
    found = image(with_gains(batch, [[1.0, 2.0], [0.5], [-0.5]]))
    assert found["image/gain_blank"] == pytest.approx((3.0 + 0.5 - 0.5) / 3)
    assert found["image/gain_swap"] == pytest.approx(2.0)
    assert image(batch) == {}


def test_gains_of_several_processes_are_joined(batch: StepBatch) -> None:
    one, other = with_gains(batch, [[1.0]]), replace(batch, image_gains=None)
    whole = _concatenate_batches([other, one])
    assert image(whole)["image/gain_blank"] == pytest.approx(1.0)
    assert _concatenate_batches([other, other]).image_gains is None


def test_the_rule_fires_on_a_blind_policy_and_clears_on_a_seeing_one() -> None:
    monitor = HealthMonitor(HealthSettings())

    def observe(step: int, gain: float) -> list[tuple[str, str]]:
        alerts = monitor.observe(step, {"image/gain_swap": gain})
        return [(alert.rule, alert.state) for alert in alerts]

    assert [observe(step, 0.0) for step in (20, 40)] == [[], []]
    assert monitor.observe(50, {}) == []  # not measured in this step
    assert observe(60, 0.2) == [("ignores_image", "fired")]  # mean 0.067, limit 0.1
    assert observe(80, 0.2) == []  # mean 0.133, cleared above 0.15
    assert observe(100, 0.2) == [("ignores_image", "cleared")]


@pytest.mark.usefixtures("rewarding")
def test_a_blind_model_in_a_run_fires_the_rule(tmp_path: Path, blind: Policy) -> None:
    blind.save(tmp_path / "blind")
    settings = config(
        model={"path": str(tmp_path / "blind")},
        diagnostics={"images_every": 1},
        optimizer={"lr": 1e-12},
        health={"image_measurements": 2},
    )
    report = EventFile(tmp_path)
    train(settings, report, lambda: False)
    report.close()
    fired = [(event["rule"], event["step"]) for event in of_type(tmp_path, "health") if event["state"] == "fired"]
    assert ("ignores_image", 2) in fired
    (completion, *_) = of_type(tmp_path, "sample")[0]["group"]["completions"]
    for change in ("image_blank", "image_shuffle", "image_swap"):
        assert len(completion[change]) == len(completion["tokens"])
        assert max(map(abs, completion[change])) < 1e-4


def evaluated(folder: Path, model: dict[str, Any]) -> tuple[dict[str, float], dict[str, list[list[str]]]]:
    """The metrics, and the texts by way of sampling."""
    settings = {
        "models": [model],
        "data": [{"builtin": "digits", "split": "test", "rows": 4}],
        "rollout": {"samples": 2, "max_completion_tokens": 6},
        "image_changes": ["swap", "blank"],
    }
    report = EventFile(folder)
    ended = evaluate(EvaluateConfig.model_validate(settings), report)
    report.close()
    texts: dict[str, list[list[str]]] = {}
    for line in (folder / "answers.jsonl").read_text().splitlines():
        row = json.loads(line)
        texts.setdefault(row["how"], []).append(row["texts"])
    return ended["result"]["results"][0]["metrics"], texts


@pytest.mark.usefixtures("rewarding")
def test_an_evaluation_has_the_accuracy_with_changed_images(tmp_path: Path, blind: Policy) -> None:
    blind.save(tmp_path / "blind")
    metrics, texts = evaluated(tmp_path / "one", {"path": str(tmp_path / "blind")})
    assert texts["sampled"] == texts["swap"] == texts["blank"]
    assert metrics["accuracy"] == metrics["accuracy_swap"] == metrics["accuracy_blank"]
    metrics, texts = evaluated(tmp_path / "two", {"builtin": "tiny-vlm", "seed": 2})
    assert metrics["accuracy_swap_low"] <= metrics["accuracy_swap"] <= metrics["accuracy_swap_high"]
    assert "accuracy_shuffle" not in metrics


@pytest.mark.usefixtures("rewarding")
def test_validation_has_the_accuracy_with_changed_images(tmp_path: Path, blind: Policy) -> None:
    blind.save(tmp_path / "blind")
    validation = {"data": {"builtin": "digits", "split": "validation", "rows": 4}, "samples": 2}
    settings = config(
        model={"path": str(tmp_path / "blind")},
        steps=1,
        optimizer={"lr": 1e-12},
        validation={**validation, "image_changes": ["shuffle"]},
    )
    report = EventFile(tmp_path)
    train(settings, report, lambda: False)
    report.close()
    (event,) = of_type(tmp_path, "metrics")
    assert event["values"]["validation/accuracy_shuffle"] == event["values"]["validation/accuracy"]


def test_a_change_can_be_named_once() -> None:
    settings = {"models": [{"builtin": "tiny-vlm"}], "data": [{"builtin": "digits"}], "image_changes": ["swap", "swap"]}
    with pytest.raises(ValueError, match="each change can be named once"):
        EvaluateConfig.model_validate(settings)
