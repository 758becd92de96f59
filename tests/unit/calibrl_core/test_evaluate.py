"""A whole evaluation: figures by dataset and by source, comparisons, and every answer kept."""

import json
import re
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.config import EvaluateConfig
from calibrl_core.data.schema import Example, Turn
from calibrl_core.evaluate import evaluate
from calibrl_core.evaluation.stored_answers import prompt_digest
from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.report import EventFile
from calibrl_core.verifiers.scorer import NoVerdictError, Score, Scorer


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    rows = [
        {
            "prompt": [{"role": "user", "content": f"What is {n} + 1?"}],
            "reward_model": {"ground_truth": str(n + 1)},
            "data_source": "even" if n % 2 == 0 else "odd",
        }
        for n in range(5)
    ]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "models": [{"builtin": "tiny-vlm"}, {"builtin": "tiny-vlm", "seed": 1}],
        "data": [{"path": str(tmp_path / "sums.jsonl")}, {"builtin": "digits", "split": "test", "rows": 2}],
        "rollout": {"samples": 2, "max_completion_tokens": 4},
        "rewards": [{"type": "exact"}, {"type": "format"}],
    }


def run(folder: Path, settings: Any, should_stop: Any = lambda: False) -> Any:
    report = EventFile(folder)
    ended = evaluate(EvaluateConfig.model_validate(settings), report, should_stop)
    report.close()
    return ended, [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_evaluation(tmp_path: Path, settings: Any) -> None:
    ended, events = run(tmp_path / "run", settings)
    assert ended["status"] == "succeeded"
    results, comparisons = ended["result"]["results"], ended["result"]["comparisons"]
    assert [(row["model_index"], row["split"], row["prompts"]) for row in results] == [
        *((0, "sums", 5), (0, "test", 2)),
        *((1, "sums", 5), (1, "test", 2)),
    ]
    assert {source: part["prompts"] for source, part in results[0]["sources"].items()} == {"even": 3, "odd": 2}
    assert results[1]["sources"] == {}
    shown = {"accuracy", "strict_accuracy", "pass_at_k", "pass_at_1", "pass_at_2", "majority_at_k", "format_rate"}
    shown |= {"length_mean", "truncated_share", "greedy_accuracy", "greedy_strict_accuracy", "greedy_accuracy_low"}
    for metrics in (results[0]["metrics"], results[0]["sources"]["odd"]["metrics"]):
        assert shown | {"verifier_failures"} <= set(metrics)
        assert metrics["accuracy"] == 0.0  # a fresh model is never right
    assert {row["split"] for row in comparisons} == {"sums", "test"}
    assert (comparisons[0]["difference"], comparisons[0]["distinguishable"]) == (0.0, False)
    (start,) = [event for event in events if event["type"] == "start"]
    assert start["versions"] == {}
    metrics = [event for event in events if event["type"] == "metrics"]
    assert [event["step"] for event in metrics] == [1, 2]
    assert {"eval/sums/greedy_accuracy", "eval/test/pass_at_k"} <= set(metrics[1]["values"])


def test_the_format_and_the_columns_of_each_file_are_logged(tmp_path: Path, settings: Any) -> None:
    rows = (tmp_path / "sums.jsonl").read_text().replace('"data_source"', '"note": "n", "data_source"')
    (tmp_path / "sums.jsonl").write_text(rows)
    _, events = run(tmp_path / "run", settings | {"models": settings["models"][:1]})
    logged = [event["message"] for event in events if event["type"] == "log" and event["level"] == "info"]
    assert logged == ["data.0: sums: 5 rows in verl's format, 0 with expert, 0 with images; unused columns: note"]


def test_every_prompts_accuracy_is_reported(tmp_path: Path, settings: Any) -> None:
    _, events = run(tmp_path / "run", settings)
    reported = [event for event in events if event["type"] == "accuracies"]
    assert [(event["model_index"], event["split"], event["values"]) for event in reported] == [
        (model, split, [0.0] * prompts) for model in (0, 1) for split, prompts in (("sums", 5), ("test", 2))
    ]
    assert reported[0]["prompts"] == reported[2]["prompts"]
    assert len({*reported[0]["prompts"], *reported[1]["prompts"]}) == 7
    assert all(re.fullmatch("[0-9a-f]{16}", prompt) for prompt in reported[0]["prompts"])


def test_a_prompt_is_identified_by_its_input_and_truth() -> None:
    example = Example(id="a", question="q", answer="1", images=(b"x",), earlier=(Turn("system", "s"),))
    same = replace(example, id="b", expert="e", data_source="d", pass_ratio=0.5)
    others: list[dict[str, Any]] = [
        {"question": "r"},
        {"answer": "2"},
        {"images": (b"y",)},
        {"images": ()},
        {"earlier": ()},
    ]
    assert prompt_digest(example) == prompt_digest(same)
    assert len({prompt_digest(one) for one in (example, *(replace(example, **change) for change in others))}) == 6


def test_an_evaluation_without_a_verdict_ends_with_the_reason(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Any, inputs: Any) -> Any:
        return [Score({"exact": 0.0}, 0.0, False, False, "exact: ValueError", ("exact",)) for _ in inputs]

    monkeypatch.setattr(Scorer, "grade", failing)
    expected = "rewards: exact gave no verdict on any of 10 completions (exact: ValueError); fix or remove"
    with pytest.raises(NoVerdictError, match=re.escape(expected)):
        run(tmp_path / "run", settings)
    assert len((tmp_path / "run" / "answers.jsonl").read_text().splitlines()) == 5


def test_every_answer_is_kept(tmp_path: Path, settings: Any) -> None:
    run(tmp_path / "run", {**settings, "models": settings["models"][:1], "data": settings["data"][:1]})
    rows = [json.loads(line) for line in (tmp_path / "run" / "answers.jsonl").read_text().splitlines()]
    assert [(row["how"], row["data_source"], row["answer"]) for row in rows] == [
        (how, "even" if n % 2 == 0 else "odd", str(n + 1)) for how in ("sampled", "greedy") for n in range(5)
    ]
    for row in rows:
        count = 2 if row["how"] == "sampled" else 1
        assert {len(row[name]) for name in ("texts", "passed", "strict", "lengths", "truncated", "failures")} == {count}


def test_a_model_is_freed_before_the_next_one_loads(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[Any]] = []
    alive = []

    def load(*given: Any, **named: Any) -> Any:
        alive.append(sum(one() is not None for one in loaded))
        policy = load_policy(*given, **named)
        loaded.append(weakref.ref(policy.model))
        return policy

    monkeypatch.setattr("calibrl_core.run.frozen_policy.load_policy", load)
    run(tmp_path / "run", {**settings, "data": settings["data"][1:]})
    assert alive == [0, 0]


def test_an_evaluation_stops_on_request(tmp_path: Path, settings: Any) -> None:
    ended, events = run(tmp_path / "run", settings, should_stop=lambda: True)
    assert (ended["status"], ended["result"]) == ("stopped", {})
    assert [event["type"] for event in events] == ["log", "start", "checked", "progress"]


def test_a_model_that_is_computed_wrongly_is_refused_before_it_is_sampled(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Policy.logprobs
    monkeypatch.setattr(Policy, "logprobs", lambda *arguments: original(*arguments) - 1)
    report = EventFile(tmp_path)
    with pytest.raises(ModelError, match="log-probabilities of the update differ"):
        evaluate(EvaluateConfig.model_validate(settings), report)
    report.close()
    assert "progress" not in (tmp_path / "events.jsonl").read_text()
