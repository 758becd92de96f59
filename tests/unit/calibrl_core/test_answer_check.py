"""Answers that no completion can earn, and experts that fail or are cut, are known before the first step."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from calibrl_core.config import EvaluateConfig, TrainConfig
from calibrl_core.data.schema import DataError
from calibrl_core.evaluate import evaluate
from calibrl_core.report import EventFile
from calibrl_core.run import answer_check
from calibrl_core.run.identity import ResumeError
from calibrl_core.train import train
from calibrl_core.verifiers.refusals import expert_judges, refusals, truth_faults
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.reward_input import RewardInput
from tests.support.training import of_type


def rewards(*settings: dict[str, Any]) -> list[Reward]:
    return TypeAdapter(list[Reward]).validate_python(settings)


def faults(truths: list[str], *settings: dict[str, Any]) -> list[str]:
    found = truth_faults(rewards(*settings), truths, seconds=60, with_workers=False)
    return [truth for truth in truths if truth in found]


@pytest.mark.parametrize(
    ("settings", "truths", "hopeless"),
    [
        ({"type": "numeric"}, ["7", "1/2", "5 km", "no number", "B", "7, 8"], ["no number", "B", "7, 8"]),
        ({"type": "math"}, ["7", "\\frac{1}{2}", "x^2", "no number", "B", " ", "a" * 5_000], [" ", "a" * 5_000]),
        ({"type": "choice"}, ["B", "(C)", "a text", " "], [" "]),
        ({"type": "exact"}, ["B", " a ", "\\boxed{7}"], ["\\boxed{7}"]),  # the box of an answer is removed
        ({"type": "exact", "answer_in": "last"}, ["7", "x^2"], ["x^2"]),  # the last number is no expression
        ({"type": "math", "answer_in": "boxed"}, ["7", "x^2", "\\boxed{7}"], []),
        ({"type": "format"}, ["", "x"], []),
    ],
)
def test_answers_that_their_own_reward_refuses(settings: Any, truths: list[str], hopeless: list[str]) -> None:
    assert faults(truths, settings) == hopeless


def test_one_refusing_reward_is_enough() -> None:
    """A completion passes only if all of them accept it."""
    found = truth_faults(
        rewards({"type": "math"}, {"type": "numeric"}, {"type": "format"}), ["x^2"], seconds=60, with_workers=False
    )
    assert found["x^2"].startswith("no completion can earn the answer 'x^2': the reward numeric refuses even this")


COLOUR = {"type": "string_check", "input": "{{ sample.output_text }}", "reference": "{{ item.colour }}"}
BOTH = {"type": "multi", "formula": "0.5 * a + 0.5 * b", "rewards": {"a": COLOUR, "b": {"type": "exact"}}}
ASKED = {"type": "judge", "endpoint": "e", "model": "m", "messages": [{"content": "{{ truth }}?"}]}
OWN = {"type": "python", "name": "own", "source": "def grade(sample, item):\n    return 1.0"}


def test_all_rewards_without_a_service_judge_experts() -> None:
    asked, not_asked = expert_judges(rewards(COLOUR, BOTH, {"type": "format"}, ASKED, OWN), with_workers=False)
    assert not_asked == (
        "the rewards judge, python-own were not asked about the experts: services and functions judge during the run "
        "only"
    )
    seen = [RewardInput("<answer>red</answer>", truth, item={"colour": colour}) for truth, colour in EXPERTS]
    found = refusals(asked, seen, seconds=60, with_workers=False)
    assert (found.judged, dict(found.labels)) == (4, {1: ("string_check",), 3: ("string_check", "multi")})


EXPERTS = [("red", "red"), ("red", "blue"), ("blue", "red"), ("blue", "blue")]


def test_functions_judge_experts_where_there_are_processes() -> None:
    asked, not_asked = expert_judges(rewards(OWN, ASKED), with_workers=True)
    assert [one.label for one in asked] == ["python-own"]
    assert not_asked == "the reward judge was not asked about the experts: services judge during the run only"
    assert expert_judges(rewards(OWN, COLOUR), with_workers=True)[1] is None


def test_a_missing_verdict_refuses_no_expert() -> None:
    found = refusals(rewards(COLOUR, BOTH), [RewardInput("<answer>7</answer>", "7")], seconds=60, with_workers=False)
    assert (found.judged, dict(found.labels)) == (1, {})  # the row has no column `colour`


def test_verdicts_end_with_their_time() -> None:
    found = refusals(rewards({"type": "numeric"}), [RewardInput("a", "b")] * 3, seconds=-1, with_workers=False)
    assert (found.judged, dict(found.labels)) == (0, {})


def test_answers_are_read_only_while_there_is_time() -> None:
    answers = (f"no number {number // 2}" for number in itertools.count())
    found = truth_faults(rewards({"type": "numeric"}), answers, seconds=0.05, with_workers=False)
    assert 0 < len(found) < 1_000_000
    assert truth_faults(rewards({"type": "numeric"}), itertools.repeat("7"), seconds=0.05, with_workers=False) == {}


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps({"question": "1+1?", **row}) + "\n" for row in rows))
    return str(path)


def settings(data: str, algorithm: str, **others: Any) -> dict[str, Any]:
    return {
        "model": {"builtin": "tiny-vlm"},
        "data": {"path": data},
        "algorithm": {"type": algorithm, **({"mini_batches": 1} if algorithm != "sft" else {})},
        "rewards": [{"type": "numeric"}],
        "rollout": {"group_size": 2, "max_completion_tokens": 8},
        "steps": 1,
        "prompts_per_step": 1,
        **others,
    }


def logged(folder: Path) -> list[str]:
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return [event["message"] for event in events if event["type"] == "log" and event["level"] == "warning"]


def test_training_names_all_rows_whose_answers_cannot_be_earned(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", *({"answer": answer} for answer in ("2", "blue", "2", "green", "blue")))
    with pytest.raises(DataError) as refused:
        train(TrainConfig.model_validate(settings(path, "grpo")), EventFile(tmp_path / "run"), lambda: False)
    first, second = re.split(r"; (?=/)", str(refused.value))
    assert first.startswith(
        f"data: {path}, row 2: no completion can earn the answer 'blue': the reward numeric refuses"
    )
    assert first.endswith("or choose another reward, or set unearnable: drop, as in 1 more rows (5)")
    assert second.startswith(f"{path}, row 4: no completion can earn the answer 'green'")


def test_faults_of_all_sources_are_named_together(tmp_path: Path) -> None:
    first = write(tmp_path / "first.jsonl", {"answer": "blue"})
    second = write(tmp_path / "second.jsonl", {"answer": "2"}, {"answer": "2", "question": 7})
    held = write(tmp_path / "held.jsonl", {"answer": "2", "images": ["none.png"]})
    run = settings("", "grpo", validation={"data": {"path": held}}) | {"data": [{"path": first}, {"path": second}]}
    with pytest.raises(DataError) as refused:
        train(TrainConfig.model_validate(run), EventFile(tmp_path / "run"), lambda: False)
    lines = str(refused.value).splitlines()
    assert [re.split(r", row", line)[0] for line in lines] == [f"data: {first}", second, held]


def test_other_rows_and_experts_are_warned_of(tmp_path: Path) -> None:
    good, wrong, long = "<answer>2</answer>", "<answer>3</answer>", "<answer>2</answer>" * 30
    path = write(tmp_path / "own.jsonl", *({"answer": "2", "expert": one} for one in (good, wrong, long)))
    held = write(tmp_path / "held.jsonl", {"answer": "2"}, {"answer": "blue"})
    run = settings(path, "luffy", validation={"data": {"path": held}}, rollout={"group_size": 2})
    run["rollout"]["max_completion_tokens"] = 24
    train(TrainConfig.model_validate(run), EventFile(tmp_path / "run"), lambda: True)
    refused, cut, held_out = [text for text in logged(tmp_path / "run") if "experts" in text or "earn" in text]
    assert refused.startswith("data: 1 of 3 experts fail the rewards of the job (numeric): rows 2;")
    assert cut.startswith("data: 1 of 3 experts have more than 24 tokens and are cut: rows 3; none of these teaches")
    assert held_out.startswith("validation.data: 1 of 2 rows (2) fail with any completion: no completion can earn")


def test_an_evaluation_warns_of_answers(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", {"answer": "2"}, {"answer": "blue"})
    config: dict[str, Any] = {"models": [{"builtin": "tiny-vlm"}], "data": [{"path": path}]}
    config |= {"rewards": [{"type": "numeric"}], "rollout": {"max_completion_tokens": 4}}
    evaluate(EvaluateConfig.model_validate(config), EventFile(tmp_path / "run"), lambda: True)
    assert [text for text in logged(tmp_path / "run") if text.startswith("data.0: 1 of 2 rows (2) fail with any")]


def dropping(folder: Path, data: Any, epochs: int) -> list[str]:
    """Train without the rows that cannot be earned; return the new warnings of them."""
    before = len(logged(folder)) if folder.exists() else 0
    run = settings("", "grpo", unearnable="drop", steps=None, epochs=epochs) | {"data": data}
    report = EventFile(folder)
    train(TrainConfig.model_validate(run), report, lambda: False)
    report.close()
    return [text for text in logged(folder)[before:] if "dropped" in text]


def test_a_resumed_run_drops_the_rows_that_it_dropped_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = write(tmp_path / "own.jsonl", {"answer": "blue"}, {"answer": "2"}, {"answer": "blue"})
    data = [{"path": write(tmp_path / "good.jsonl", {"answer": "3"})}, {"path": mixed}]
    (first,) = dropping(tmp_path / "run", data, epochs=1)
    assert first.startswith("data: own: 2 of 3 rows (1, 3) are dropped: no completion can earn the answer 'blue'")
    monkeypatch.setattr(answer_check, "SECONDS", -1.0)  # a later check would find no row
    assert dropping(tmp_path / "run", data, epochs=2) == [
        "data: own: 2 of 3 rows (1, 3) are dropped: the run dropped them when it started"
    ]
    starts = [event["steps_total"] for event in of_type(tmp_path / "run", "start")]
    assert starts == [2, 4]
    write(tmp_path / "own.jsonl", {"answer": "5"}, {"answer": "5"})
    with pytest.raises(ResumeError, match="data: the rows are not those"):
        dropping(tmp_path / "run", data, epochs=3)


def test_a_source_without_any_row_that_can_be_earned_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", {"answer": "blue"}, {"answer": "red"})
    with pytest.raises(DataError, match="data: own: all 2 rows would be dropped: no completion can earn"):
        dropping(tmp_path / "run", {"path": path}, epochs=1)
