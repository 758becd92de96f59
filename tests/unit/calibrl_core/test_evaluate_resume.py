"""An evaluation that was stopped or killed continues behind the last whole batch of its answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.config import EvaluateConfig
from calibrl_core.evaluate import evaluate
from calibrl_core.evaluation import accuracy
from calibrl_core.models.policy import load_policy
from calibrl_core.report import EventFile
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.verifiers.scorer import NoVerdictError, Score, Scorer
from tests.support.training import of_type, score_by_hash

BATCHES = 2 * (3 + 2)  # per model: 5 prompts, 2 samples, 4 rows at a time: 3 batches, and 2 greedy ones


class Killed(BaseException):
    """The end of the process."""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(accuracy, "ROWS_AT_ONCE", 4)
    monkeypatch.setattr(Scorer, "grade", score_by_hash)
    rows = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(5)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "models": [{"builtin": "tiny-vlm"}, {"builtin": "tiny-vlm", "seed": 1}],
        "data": [{"path": str(tmp_path / "sums.jsonl")}],
        "rollout": {"samples": 2, "max_completion_tokens": 3, "top_k": 50, "stop": ["."]},
        "rewards": [{"type": "exact"}],
    }


@pytest.fixture
def evaluated(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Evaluate in a folder, killed before some batch if asked; return the result, or None after the kill."""
    generate = SharedPrefillEngine.generate
    monkeypatch.setattr("calibrl_core.run.model_check.check_model", lambda *given: 0.0)  # it samples, too

    def run(
        folder: Path, *, kill_at: int = 1000, should_stop: Callable[[], bool] = lambda: False, **changed: Any
    ) -> Any:
        calls: list[Any] = []

        def counting(self: Any, examples: Any, request: Any) -> Any:
            if len(calls) == kill_at:
                raise Killed
            calls.append(request)
            return generate(self, examples, request)

        monkeypatch.setattr(SharedPrefillEngine, "generate", counting)
        report = EventFile(folder)
        try:
            found = evaluate(EvaluateConfig.model_validate(settings | changed), report, should_stop)["result"]
        except Killed:
            found = None
        report.close()
        return found, len(calls)

    return run


def answers(folder: Path) -> list[str]:
    return (folder / "answers.jsonl").read_text().splitlines()


def test_a_killed_evaluation_continues_with_the_same_results(tmp_path: Path, evaluated: Any) -> None:
    whole, calls = evaluated(tmp_path / "whole")
    assert calls == BATCHES
    assert whole["results"][0]["metrics"]["accuracy"] > 0
    assert whole["rollout"]["top_k"] == 50
    run = tmp_path / "run"
    assert evaluated(run, kill_at=1) == (None, 1)
    with (run / "answers.jsonl").open("a") as file:
        file.write(answers(run)[-1][:40])  # the kill came while a row was written
    assert evaluated(run, kill_at=3) == (None, 3)
    found, calls = evaluated(run)
    assert calls == BATCHES - 1 - 3
    assert found == whole
    assert answers(run) == answers(tmp_path / "whole")
    assert [event["step"] for event in of_type(run, "start")] == [0, 1, 4]
    assert [event["step"] for event in of_type(run, "progress")] == [*range(1, BATCHES + 1)]


def test_half_a_batch_is_sampled_again(tmp_path: Path, evaluated: Any) -> None:
    whole, _ = evaluated(tmp_path)
    rows = answers(tmp_path)
    (tmp_path / "answers.jsonl").write_text("\n".join(rows[:3]))  # one and a half of the first part's three batches
    assert evaluated(tmp_path) == (whole, BATCHES - 1)
    assert answers(tmp_path) == rows


def test_a_model_with_all_answers_is_not_loaded_again(
    tmp_path: Path, evaluated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated(tmp_path, should_stop=lambda: len(of_type(tmp_path, "progress")) == 5)
    loaded = []

    def load(source: Any, *given: Any, **named: Any) -> Any:
        loaded.append(source.seed)
        return load_policy(source, *given, **named)

    monkeypatch.setattr("calibrl_core.run.frozen_policy.load_policy", load)
    found, calls = evaluated(tmp_path)
    assert (loaded, calls) == ([1], 5)
    assert [row["model_index"] for row in found["results"]] == [0, 1]
    assert [event["step"] for event in of_type(tmp_path, "metrics")] == [1, 2]
    assert evaluated(tmp_path) == (found, 0)  # all is stored: only the results are computed again


def test_answers_of_other_settings_are_removed(tmp_path: Path, evaluated: Any) -> None:
    evaluated(tmp_path)
    before = answers(tmp_path)
    _, calls = evaluated(tmp_path, seed=7)
    assert calls == BATCHES
    assert len(answers(tmp_path)) == len(before)
    assert not {*answers(tmp_path)} & {*before}


def test_answers_without_any_verdict_are_not_kept(
    tmp_path: Path, evaluated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Any, inputs: Any) -> Any:
        return [Score({"exact": 0.0}, 0.0, False, False, "exact: broken", ("exact",)) for _ in inputs]

    monkeypatch.setattr(Scorer, "grade", failing)
    with pytest.raises(NoVerdictError):
        evaluated(tmp_path)
    monkeypatch.setattr(Scorer, "grade", score_by_hash)  # the verifier was repaired
    assert evaluated(tmp_path)[1] == BATCHES


def test_an_evaluation_in_bfloat16_has_no_float32_masters(
    tmp_path: Path, evaluated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = []

    def load(*given: Any, **named: Any) -> Any:
        policy = load_policy(*given, **named)
        layer = policy.decoder.text_model.layers[0].mlp.up_proj.weight
        kinds.append((str(layer.dtype), str(policy.head.weight.dtype), layer.requires_grad))
        return policy

    monkeypatch.setattr("calibrl_core.run.frozen_policy.load_policy", load)
    evaluated(tmp_path, precision="bfloat16", models=[{"builtin": "tiny-vlm"}])
    assert kinds == [("torch.bfloat16", "torch.float32", False)]
