"""The check of a loaded model: models that the trainer handles wrongly are refused before training."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from calibrl_core.data.schema import Example
from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import Policy
from calibrl_core.report import EventFile
from calibrl_core.rollout import self_check
from calibrl_core.rollout.self_check import check_model
from calibrl_core.train import train
from tests.support.training import config, of_type

TEXT = Example(id="text", question="What is 1 + 2?", answer="3")


@pytest.fixture
def mixed(examples: list[Example]) -> list[Example]:
    """Examples with one image, with none and with two, and one more of each."""
    first, second = examples[:2]
    two = dataclasses.replace(first, id="two", images=(*first.images, *second.images))
    return [first, TEXT, two, second, dataclasses.replace(TEXT, id="other")]


def test_each_number_of_images_is_checked_once(
    policy: Policy, mixed: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []
    original = self_check._log_probabilities

    def noted(policy: Policy, example: Example) -> Any:
        checked.append((example.id, original(policy, example)))
        return checked[-1][1]

    monkeypatch.setattr(self_check, "_log_probabilities", noted)
    check_model(policy, mixed)
    assert [id for id, _ in checked] == [mixed[0].id, "text", "two"]
    for _, found in checked:
        assert all(float(values.max()) < -0.01 for values in found.values())  # of a random model: no token is certain


@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_an_update_with_other_logprobs_is_refused(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    original = Policy.logprobs
    monkeypatch.setattr(Policy, "logprobs", lambda *arguments: original(*arguments) * factor)
    with pytest.raises(ModelError, match=r"of the update differ .* for idefics3 on text \(0 images; at most 0.001\)"):
        check_model(policy, [TEXT])


def test_a_wrong_position_behind_an_image_is_refused(
    policy: Policy, mixed: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = policy.encoder._position_ids
    monkeypatch.setattr(policy.encoder, "_position_ids", lambda encoded: original(encoded) * 2)
    policy.encoder._encoded.clear()
    with pytest.raises(ModelError, match="of the sampler differ"):
        check_model(policy, mixed)
    policy.encoder._encoded.clear()


def test_bfloat16_is_judged_by_the_mean(text_policy: Callable[..., Policy], monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaConfig

    policy = text_policy(LlamaConfig, "bfloat16")
    check_model(policy, [TEXT])
    original = Policy.logprobs
    monkeypatch.setattr(Policy, "logprobs", lambda *arguments: original(*arguments) - 0.07)
    with pytest.raises(ModelError, match=r"differ from those of transformers by 0\.0.* at most 0\.062"):
        check_model(policy, [TEXT])


def test_a_kind_that_cannot_be_run_is_named(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise AttributeError("no such\n layer")

    monkeypatch.setattr(Policy, "logprobs", fail)
    words = r"cannot run idefics3 on text \(0 images\): AttributeError: no such layer; choose a model of another kind"
    with pytest.raises(ModelError, match=words):
        check_model(policy, [TEXT])


def test_the_check_leaves_random_numbers_as_they_are(policy: Policy) -> None:
    before = torch.random.get_rng_state()
    check_model(policy, [TEXT])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_run_is_refused_before_its_first_step(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Policy.logprobs
    monkeypatch.setattr(Policy, "logprobs", lambda *arguments: original(*arguments) - 1)
    with pytest.raises(ModelError, match="the update differ"):
        train(config(), EventFile(tmp_path), lambda: False)
    assert of_type(tmp_path, "start") == []
