"""Rows without an answer: they are used if no reward reads the truth, and refused with the remedy otherwise."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from calibrl_core import data
from calibrl_core.data.report import ReportSettings, check_data
from calibrl_core.data.row_cache import RowCache
from calibrl_core.data.schema import Columns, DataError, FileData
from calibrl_core.report import EventFile
from calibrl_core.train import train
from calibrl_core.verifiers.base import read_truth
from calibrl_core.verifiers.registry import Reward
from tests.support.training import config, of_type

ASK = {"role": "user", "content": "Sum?"}
JUDGE = {"type": "judge", "endpoint": "e", "model": "m"}
PYTHON = {"type": "python", "source": "def grade(sample, item):\n    return 1.0\n"}
CHOICES = "Sum?\nChoices:\n(A) 3\n(B) 4\nAnswer with the letter of the right choice."


def write(tmp_path: Path, *rows: dict[str, Any], **options: Any) -> FileData:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FileData(path=str(path), **options)


@pytest.mark.parametrize(
    ("reward", "reads"),
    [
        ({"type": "math"}, True),
        ({"type": "choice"}, True),
        ({"type": "format"}, False),
        ({"type": "plugin", "name": "any"}, True),
        (PYTHON, False),
        (PYTHON | {"source": "def grade(sample, item):\n    return float(sample['truth'] in 'ab')\n"}, True),
        (PYTHON | {"source": "def grade(sample, item):\n    return float(item.get('answer') == '3')\n"}, True),
        (PYTHON | {"source": "def grade(sample, item):\n    answer = item['question']\n    return 1.0\n"}, False),
        ({"type": "http", "url": "https://a.org/score"}, False),
        ({"type": "string_check"}, True),
        ({"type": "string_check", "reference": "{{ item.word }}"}, False),
        ({"type": "text_similarity", "input": "{{truth}}", "reference": "{{ item.word }}"}, True),
        ({"type": "embedding", "reference": "{{ question }}"}, False),
        ({**JUDGE, "messages": [{"content": "Is {{ sample.output_text }} polite?"}]}, False),
        ({**JUDGE, "messages": [{"content": [{"type": "text", "content": "Like {{ truth }}?"}]}]}, True),
        ({"type": "multi", "formula": "a", "rewards": {"a": PYTHON}}, False),
        ({"type": "multi", "formula": "a + b", "rewards": {"a": PYTHON, "b": {"type": "exact"}}}, True),
    ],
)
def test_a_reward_says_if_it_reads_the_truth(reward: dict[str, Any], reads: bool) -> None:
    assert read_truth([TypeAdapter[Any](Reward).validate_python(reward)]) is reads


@pytest.mark.parametrize(
    ("row", "question", "problem"),
    [
        ({"question": "Sum?"}, "Sum?", "the plain format (question, answer). Name the columns"),
        ({"problem": "Sum?"}, "Sum?", "which fit no known format"),
        ({"prompt": "Sum?"}, "Sum?", "which fit no known format"),
        ({"question": "Sum?", "answer": None}, "Sum?", "row 1: column 'answer' must hold the answer, as text or"),
        ({"problem": "Sum?", "answer": ""}, "Sum?", "row 1: column 'answer' must hold the answer, as text or"),
        ({"messages": [ASK]}, "Sum?", "row 1: has no answer: end 'messages' with the assistant's answer"),
        ({"question": "Sum?", "options": ["3", "4"], "answer": ""}, CHOICES, "row 1: column 'answer' must hold"),
        ({"question": "Sum?", "choices": ["3", "4"], "hint": "", "answer": None}, CHOICES, "row 1: column 'answer'"),
        ({"question": "Sum?", "answer": "", "question_type": "free_form"}, "Sum?", "use `testmini`"),
        (
            {"prompt": [ASK], "reward_model": {"ground_truth": None}},
            "Sum?",
            "row 1: column 'reward_model.ground_truth' must hold the answer",
        ),
    ],
)
def test_a_row_needs_an_answer_only_if_a_reward_reads_it(
    tmp_path: Path, row: dict[str, Any], question: str, problem: str
) -> None:
    source = write(tmp_path, row)
    (example,) = data.load(source, answers=False)
    assert (example.question.strip(), example.answer, example.expert) == (question, "", None)
    with pytest.raises(DataError) as refused:
        data.load(source)
    assert problem in str(refused.value)


def test_rows_with_an_answer_keep_their_format(tmp_path: Path) -> None:
    source = write(tmp_path, {"query": "Sum?", "label": "4"})
    assert data.load(source, answers=False) == data.load(source)


def test_an_expert_does_not_replace_an_answer_in_a_named_column(tmp_path: Path) -> None:
    said = {"role": "assistant", "content": "<answer>3</answer>"}
    source = write(tmp_path, {"messages": [ASK, said], "truth": ""}, columns=Columns(answer="truth"))
    assert [example.answer for example in data.load(source, answers=False)] == [""]
    with pytest.raises(DataError, match="row 1: column 'truth' must hold the answer"):
        data.load(source)


def test_converted_rows_without_answers_are_not_used_by_other_runs(tmp_path: Path) -> None:
    source, cache = write(tmp_path, {"question": "Sum?", "answer": None}), RowCache(tmp_path / "cache", 10**9)
    assert len(data.load(source, cache=cache, answers=False)) == 1
    with pytest.raises(DataError, match="must hold the answer"):
        data.load(source, cache=cache)


def test_the_report_asks_for_answers_that_its_rewards_read(tmp_path: Path) -> None:
    source = write(tmp_path, {"question": "Sum?", "answer": None}, {"question": "Or?", "answer": "3"})
    rewards = TypeAdapter[Any](list[Reward])
    judged = check_data(source, ReportSettings(rewards.validate_python([{"type": "math"}]))).report
    assert (judged.invalid, [warning.kind for warning in judged.warnings]) == (1, ["invalid"])
    others = check_data(source, ReportSettings(rewards.validate_python([PYTHON]))).report
    assert (others.invalid, others.warnings) == (0, [])


def test_a_run_that_asks_no_reward_takes_rows_without_answers(tmp_path: Path) -> None:
    source = write(tmp_path, {"question": "Sum?", "expert": "It is 4."}, {"question": "Or?", "expert": "It is 3."})
    settings = {"algorithm": {"type": "sft"}, "rollout": {"max_completion_tokens": 32}, "steps": 1}
    report = EventFile(tmp_path / "run")
    result = train(config(data=source.model_dump(), **settings), report, lambda: False)
    report.close()
    assert (result["status"], len(of_type(tmp_path / "run", "metrics"))) == ("succeeded", 1)
