"""Accuracy, pass@k, majority@k and their intervals, by numbers worked out by hand."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from calibrl_core.data.schema import Example
from calibrl_core.evaluation.accuracy import Answers, answer_batches, batch_size, pass_at, sample_answers, summarise
from calibrl_core.evaluation.bootstrap import intervals
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.verifiers import ExactReward, MathReward
from calibrl_core.verifiers.scorer import Scorer


def answers(
    texts: list[Any],
    sources: list[Any] | None = None,
    reward: ExactReward | None = None,
    form: str = "<answer>{}</answer>",
) -> Answers:
    """Return answers to prompts whose truth is 1; a text None is a completion without an answer."""
    examples = [
        Example(id=str(row), question="", answer="1", data_source=sources[row] if sources else None)
        for row in range(len(texts))
    ]
    full = [["1" if text is None else form.format(text) for text in row] for row in texts]
    with Scorer([reward or MathReward()]) as scorer:
        scores = [scorer.score_all(row, ["1"] * len(row)) for row in full]
    shape = (len(texts), len(texts[0]))
    lengths = np.arange(shape[0] * shape[1]).reshape(shape)
    return Answers(examples, full, scores, lengths, truncated=lengths % 2 == 1, logprobs=np.zeros(shape))


def test_summary() -> None:
    found = summarise(answers([["1", "1", "2", "3"], ["2", "2", "1", "1"], ["4", "5", "6", "7"]]), seed=0)
    assert found["accuracy"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert found["pass_at_k"] == found["pass_at_4"] == pytest.approx(2 / 3)
    assert found["pass_at_1"] == found["accuracy"]
    # of 4 completions, 2 right: 6 pairs, of which one is wholly wrong
    assert found["pass_at_2"] == pytest.approx((5 / 6 + 5 / 6 + 0) / 3)
    assert found["majority_at_k"] == pytest.approx(1 / 3)  # a tie goes to the answer given first
    assert (found["length_mean"], found["truncated_share"], found["verifier_failures"]) == (5.5, 0.5, 0.0)
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
    assert found["format_rate"] == found["strict_accuracy"] == found["strict_pass_at_k"] == 0.0  # no <think>
    bare = {name for name in found if not name.endswith(("_low", "_high"))} - {"verifier_failures"}
    assert all({f"{name}_low", f"{name}_high"} <= set(found) for name in bare)


def test_strict_figures_are_beside_the_plain_ones() -> None:
    texts = [["1", "1</answer>", "2"], ["1", "1", "1"]]
    found = summarise(answers(texts, form="<think>a</think><answer>{}</answer>"), seed=0)
    assert (found["accuracy"], found["strict_accuracy"]) == pytest.approx((5 / 6, 4 / 6))
    assert found["format_rate"] == pytest.approx(5 / 6)
    assert (found["pass_at_2"], found["strict_pass_at_2"]) == pytest.approx((1.0, (2 / 3 + 1) / 2))
    assert found["strict_majority_at_k"] == 1.0


def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_answer() -> None:
    for samples, k in ((1, 1), (5, 2), (6, 4), (6, 6)):
        for right in range(samples + 1):
            subsets = list(combinations([True] * right + [False] * (samples - right), k))
            share = sum(any(subset) for subset in subsets) / len(subsets)
            assert pass_at(k, samples, np.array([right])) == pytest.approx([share])
    assert pass_at(512, 1024, np.array([0, 1, 1024])) == pytest.approx([0.0, 0.5, 1.0])


def test_the_sizes_of_pass_at_k() -> None:
    found = summarise(answers([["1"] * 6]), seed=0)
    assert {name for name in found if name.startswith("pass_at_") and name.count("_") == 2} == {
        *("pass_at_k", "pass_at_1", "pass_at_2", "pass_at_4", "pass_at_6")
    }


@pytest.mark.parametrize(
    ("texts", "passes"),
    [
        (["2", "1", "1.0"], True),  # one number, written twice
        (["2", "1 cm", "1"], False),  # the unit makes them different: three answers
        (["2", "\\boxed{1}", "$1$"], True),
        (["Two", "two", "1"], False),
        (["2", "2", "1", "1", "1"], True),
        ([None, None, "1"], False),  # no answer counts as one
        (["2", "1"], False),
    ],
)
def test_majority(texts: list[Any], passes: bool) -> None:
    assert summarise(answers([texts]), seed=0)["majority_at_k"] == float(passes)


def test_answers_by_source() -> None:
    parts = answers([["1", "2"], ["1", "1"], ["3", "3"]], sources=["b", None, "a"]).by_source()
    assert list(parts) == ["a", "b"]
    assert [summarise(part, 0)["accuracy"] for part in parts.values()] == [0.0, 0.5]
    assert parts["b"].lengths.tolist() == [[0, 1]]
    assert answers([["1"]]).by_source() == {}


def test_failed_verdicts_are_counted() -> None:
    found = answers([["1", "2"]], reward=ExactReward())
    failed = [[replace(score, failure="exact: too slow") for score in row] for row in found.scores]
    assert summarise(replace(found, scores=failed), seed=0)["verifier_failures"] == 2.0


def test_intervals_are_those_of_the_mean() -> None:
    numbers = np.array([[0.0, 3.0], [1.0, 3.0]] * 50)
    low, high = intervals(numbers, seed=0)
    assert low == pytest.approx([0.5 - 1.96 * 0.05, 3.0], abs=0.015)  # standard error 0.5 / 10
    assert high == pytest.approx([0.5 + 1.96 * 0.05, 3.0], abs=0.015)
    assert np.array_equal(intervals(numbers, seed=0), [low, high])


def test_intervals_need_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.array([[0.0], [1.0]] * 50)
    monkeypatch.setattr("calibrl_core.evaluation.bootstrap.COUNTS_AT_ONCE", 700)
    low, high = intervals(numbers, seed=0)
    assert (low[0], high[0]) == pytest.approx((0.402, 0.598), abs=0.015)


def test_a_batch_has_at_most_256_completions_or_one_prompt() -> None:
    assert [batch_size(8), batch_size(100), batch_size(500)] == [32, 2, 1]


def test_asking(engine: SharedPrefillEngine, examples: list[Example], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibrl_core.evaluation.accuracy.ROWS_AT_ONCE", 8)
    with Scorer([MathReward()]) as scorer:
        request = SamplingRequest(group_size=2, temperature=1.0, max_tokens=3, seed=[0])
        found = sample_answers(engine, examples, scorer, request)
        parts = [*answer_batches(engine, examples, scorer, request)]
        nothing = sample_answers(engine, [], scorer, request)
    assert [len(part.examples) for part in parts] == [4, len(examples) - 4]
    assert [text for part in parts for text in part.texts] == found.texts
    assert nothing.lengths.shape == (0, 2)
    assert [len(row) for row in found.texts] == [len(row) for row in found.scores] == [2] * len(examples)
    assert found.lengths.shape == found.truncated.shape == (len(examples), 2)
    assert (found.lengths[found.truncated] == 3).all()
    assert (found.logprobs < 0).all()
