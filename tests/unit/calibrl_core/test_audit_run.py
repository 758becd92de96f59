"""Whole audits of planted rows: one expert is wrong, one far, one near; a stop, a restatement, and refusals."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from calibrl_core.audit import audit
from calibrl_core.auditing.auditor import RESTATE
from calibrl_core.auditing.experts import score_experts
from calibrl_core.auditing.settings import AuditConfig, AuditRollout
from calibrl_core.data.schema import DataError, Example
from calibrl_core.evaluation import accuracy
from calibrl_core.models.policy import Policy
from calibrl_core.report import EventFile
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.verifiers.scorer import NoVerdictError, Score, Scorer
from tests.support.training import of_type

QUESTION = "What is 3 + 4?"
WRONG = "<think>3+4=8</think><answer>8</answer>"
RIGHT = [
    f"<think>{text}</think><answer>7</answer>" for text in ("7", "3+4", "zyx wvu", "and and and", "====", "a, b, c")
]
LONG = "<think>" + "and " * 60 + "</think><answer>7</answer>"


class Killed(BaseException):
    """The end of the process."""


def config(folder: Path, *experts: str | None, **changes: Any) -> AuditConfig:
    rows = [{"question": QUESTION, "answer": "7", "expert": expert} for expert in experts]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rollout = {"group_size": 2, "max_completion_tokens": 40}
    given = {"model": {"builtin": "tiny-vlm"}, "data": {"path": str(folder / "sums.jsonl")}, "rollout": rollout}
    return AuditConfig.model_validate(given | changes)


def run(folder: Path, given: AuditConfig, should_stop: Callable[[], bool] = lambda: False) -> Any:
    report = EventFile(folder / "run")
    try:
        return audit(given, report, should_stop)
    finally:
        report.close()


def stored(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "run" / "audit.jsonl").read_text().splitlines()]


def nll(policy: Policy, *experts: str) -> list[float]:
    """Return the negative log-likelihood per token of experts by a pass of their own."""
    example = Example(id="", question=QUESTION, answer="7")
    rollout = AuditRollout(max_completion_tokens=40)
    return [score_experts(policy, [example], [0], [expert], rollout).nll_per_token[0] for expert in experts]


class Experts(NamedTuple):
    """Right experts under the fresh model; `limit`: nats per token between the two."""

    near: str
    far: str
    limit: float


@pytest.fixture
def experts(policy: Policy) -> Experts:
    each = sorted(zip(nll(policy, *RIGHT), RIGHT, strict=True))
    (least, near), (most, far) = each[0], each[-1]
    assert most > least + 0.1
    return Experts(near, far, (least + most) / 2)


def test_a_wrong_a_far_and_a_near_expert_get_their_verdicts(tmp_path: Path, experts: Experts) -> None:
    ended = run(tmp_path, config(tmp_path, experts.near, None, experts.far, WRONG, LONG, max_nll=experts.limit))
    assert ended["status"] == "succeeded"
    found = ended["result"]
    assert found["verdicts"] == {"use": 1, "rewrite": 1, "drop": 2}
    assert (found["rows"], found["without_expert"], found["passed"], found["cut"]) == (4, 1, 3, 1)
    rows = {one["row"]: one for one in stored(tmp_path)}
    assert {number: one["verdict"] for number, one in rows.items()} == {1: "use", 3: "rewrite", 4: "drop", 5: "drop"}
    assert rows[4]["reasons"] == ["the reward math refuses the expert"]
    assert rows[5]["reasons"][0].startswith("cut: ")
    assert "far from the policy" in rows[3]["reasons"][0]
    assert [one["row"] for one in found["worst"]][2:] == [3, 1]
    assert all(one["pass_rate"] == 0.0 and not one["active"] for one in rows.values())  # a fresh model is never right
    assert "neither CalibRL nor GRPO learns" in found["conclusion"]
    assert all(sum(one["gap_counts"]) == sum(one["quadrants"].values()) > 0 for one in rows.values())
    assert [event["step"] for event in of_type(tmp_path / "run", "progress")] == [1]


def test_a_killed_audit_continues_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "ROWS_AT_ONCE", 4)  # two prompts per batch
    monkeypatch.setattr("calibrl_core.run.model_check.check_model", lambda *given: 0.0)  # it samples, too
    generate, calls = SharedPrefillEngine.generate, list[int]()
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()

    def counting(self: Any, examples: Any, request: Any) -> Any:
        if len(calls) == 2:
            raise Killed
        calls.append(len(examples))
        return generate(self, examples, request)

    given = [*RIGHT[:2], WRONG, *RIGHT[2:4]]
    whole = run(tmp_path / "whole", config(tmp_path / "whole", *given))["result"]
    monkeypatch.setattr(SharedPrefillEngine, "generate", counting)
    killed = config(tmp_path / "killed", *given)
    with pytest.raises(Killed):
        run(tmp_path / "killed", killed)
    with (tmp_path / "killed" / "run" / "audit.jsonl").open("a") as file:
        file.write('{"row": 5, "verd')  # the kill came while a row was written
    calls.clear()
    assert run(tmp_path / "killed", killed)["result"] == whole
    assert calls == [1]
    starts = of_type(tmp_path / "killed" / "run", "start")
    assert [(event["step"], event["steps_total"]) for event in starts] == [(0, 3), (2, 3)]
    calls.clear()
    assert run(tmp_path / "killed", killed)["result"] == whole  # only the summary is made again
    assert calls == []
    with pytest.raises(Killed):  # another limit is another audit
        run(tmp_path / "killed", killed.model_copy(update={"max_nll": 50.0}))


def test_an_audit_stops_between_two_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "ROWS_AT_ONCE", 2)
    ended = run(tmp_path, config(tmp_path, *RIGHT[:2]), lambda: True)
    assert (ended["status"], ended["step"], ended["result"], len(stored(tmp_path))) == ("stopped", 1, {}, 1)


class Restating:
    """The model restates each expert as a wrong answer and as `text`; `asked`: the prompts that asked for it."""

    def __init__(self) -> None:
        self.asked: list[Sequence[Example]] = []
        self.text = ""


@pytest.fixture
def restating(monkeypatch: pytest.MonkeyPatch) -> Restating:
    model, generate = Restating(), SharedPrefillEngine.generate

    def answering(self: Any, examples: Any, request: Any) -> Any:
        rollouts = generate(self, examples, request)
        if RESTATE not in examples[0].question:
            return rollouts
        model.asked.append(examples)
        texts = [text for _ in examples for text in ("<think>7</think><answer>9</answer>", model.text)]
        return replace(rollouts, texts=texts, truncated=torch.zeros_like(rollouts.truncated))

    monkeypatch.setattr(SharedPrefillEngine, "generate", answering)
    return model


def test_a_far_expert_is_restated_if_that_is_right_and_likelier(
    tmp_path: Path, policy: Policy, experts: Experts, restating: Restating
) -> None:
    restating.text = experts.near
    found = run(tmp_path, config(tmp_path, experts.near, experts.far, WRONG, max_nll=experts.limit, rewrite=True))[
        "result"
    ]
    ((prompt,),) = restating.asked
    assert prompt.question.startswith(QUESTION) and experts.far in prompt.question
    rows = {one["row"]: one for one in stored(tmp_path)}
    assert {number: one["rewrite"] for number, one in rows.items()} == {1: None, 2: experts.near, 3: None}
    assert rows[2]["rewritten_nll_per_token"] == pytest.approx(nll(policy, experts.near)[0], abs=1e-4)
    assert (rows[2]["verdict"], found["rewritten"]) == ("rewrite", 1)


def test_a_restatement_that_is_less_likely_is_not_kept(tmp_path: Path, experts: Experts, restating: Restating) -> None:
    restating.text = experts.far
    found = run(tmp_path, config(tmp_path, experts.near, max_nll=0.1, rewrite=True))["result"]
    assert (found["verdicts"]["rewrite"], found["rewritten"], len(restating.asked)) == (1, 0, 1)


def test_data_without_experts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row has an expert, and an audit needs experts"):
        run(tmp_path, config(tmp_path, None, None))


def test_a_reward_without_any_verdict_ends_the_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Any, inputs: Any) -> Any:
        return [Score({"math": 0.0, "format": 0.0}, 0.0, False, False, "math: broken", ("math",)) for _ in inputs]

    monkeypatch.setattr(Scorer, "grade", failing)
    with pytest.raises(NoVerdictError, match="gave no verdict on any of 3"):
        run(tmp_path, config(tmp_path, RIGHT[0]))
    assert stored(tmp_path) == []
