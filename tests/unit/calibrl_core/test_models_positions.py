"""Prompts and completions beyond the model's positions: an error where a table ends, otherwise a warning."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import GPT2Config, GPTJConfig, LlamaConfig, OPTConfig

from calibrl_core.config import EvaluateConfig
from calibrl_core.data.schema import Example
from calibrl_core.evaluate import evaluate
from calibrl_core.models.policy import Policy
from calibrl_core.models.positions import check_positions
from calibrl_core.report import EventFile
from calibrl_core.train import train
from tests.support.training import config, of_type

POSITIONS = 320
TABLES: dict[str, tuple[Any, dict[str, Any]]] = {
    "learned": (GPT2Config, {"n_embd": 32, "n_layer": 1, "n_head": 4}),
    "learned, with an offset": (OPTConfig, {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "computed once": (GPTJConfig, {"n_embd": 32, "n_layer": 1, "n_head": 4, "rotary_dim": 4}),
}


@pytest.mark.parametrize("kind", TABLES)
def test_rows_beyond_a_table_of_positions_are_refused(
    kind: str, text_policy: Callable[..., Any], text_examples: list[Example]
) -> None:
    config_class, settings = TABLES[kind]
    policy = text_policy(config_class, max_position_embeddings=POSITIONS, **settings)
    longest = max(policy.prompt_lengths(text_examples))
    assert check_positions(policy, "data", text_examples, POSITIONS - longest) is None
    message = f"data: a prompt of {longest} tokens with a completion of up to {POSITIONS - longest + 1} exceeds the 320"
    with pytest.raises(ValueError, match=f"{message} .* lower rollout.max_completion_tokens"):
        check_positions(policy, "data", text_examples, POSITIONS - longest + 1)


def test_rows_beyond_rotary_positions_are_warned_about(
    text_policy: Callable[..., Any], text_examples: list[Example]
) -> None:
    policy = text_policy(LlamaConfig, max_position_embeddings=POSITIONS)
    longest = max(policy.prompt_lengths(text_examples))
    assert check_positions(policy, "data", text_examples, POSITIONS - longest) is None
    warning = check_positions(policy, "data", text_examples, POSITIONS)
    assert warning is not None
    assert "exceeds the 320 positions of the model (max_position_embeddings), beyond which" in warning


def test_a_run_warns_once_per_data_before_its_first_step(policy: Policy, tmp_path: Path) -> None:
    """The tiny model has 512 positions."""
    settings = config(
        steps=1,
        rollout={"group_size": 2, "max_completion_tokens": 500},
        validation={"data": {"builtin": "digits", "split": "validation", "rows": 2}},
    )
    report = EventFile(tmp_path)
    train(settings, report, lambda: True)
    report.close()
    warnings = [event["message"] for event in of_type(tmp_path, "log")]
    assert [message.partition(":")[0] for message in warnings] == ["data", "validation.data"]
    assert all("up to 500 exceeds the 512 positions" in message for message in warnings)


def test_an_evaluation_warns_before_it_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibrl_core.evaluate.answer_batches", lambda *given: iter([SimpleNamespace(scores=[])]))
    monkeypatch.setattr("calibrl_core.evaluate.StoredAnswers.append", lambda *given: None)
    settings = EvaluateConfig.model_validate(
        {
            "models": [{"builtin": "tiny-vlm"}],
            "data": [{"builtin": "digits", "split": "validation", "rows": 1}],
            "rollout": {"samples": 1, "greedy": False, "max_completion_tokens": 500},
        }
    )
    report = EventFile(tmp_path)
    evaluate(settings, report, lambda: True)
    report.close()
    (event,) = of_type(tmp_path, "log")
    assert event["level"] == "warning"
    assert "up to 500 exceeds the 512 positions" in event["message"]
