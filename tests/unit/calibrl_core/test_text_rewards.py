"""The rewards `string_check` and `text_similarity`, and the templates of their texts."""

from typing import Any

import pytest
from pydantic import ValidationError

from calibrl_core.verifiers.base import Deferred
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.string_check import StringCheckReward
from calibrl_core.verifiers.templates import check_template, fill
from calibrl_core.verifiers.text_similarity import TextSimilarityReward, similarity

SEEN = RewardInput(
    '<think>so</think><answer>{"city": "Bern", "pages": [3, 4]}</answer>',
    "the truth",
    "Which city?",
    item={"name": "Zürich", "more": {"level": 2, "tags": ["a", "b"]}},
    group=("one", "two"),
)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{item.name}} and {{ item.more.level }}", "Zürich and 2"),
        ("{{ item.more.tags.1 }}, {{ item.more.tags }}", 'b, ["a", "b"]'),
        ("{{ item.more.tags[1] }} {{ sample.output_json.pages[0] }}", "b 3"),
        ("{{ sample.choices[0].message.role }}", "assistant"),
        ("{{ sample.output_json.city }} {{ sample.output_json.pages.0 }}", "Bern 3"),
        ("{{ sample.output_text }}", '{"city": "Bern", "pages": [3, 4]}'),
        ("{{ question }} {{ truth }}", "Which city? the truth"),
        ("{{ group }}, {{ group[1] }}", '["one", "two"], two'),
        ("{ no } placeholder }}", "{ no } placeholder }}"),
    ],
)
def test_templates_are_filled(template: str, text: str) -> None:
    assert fill(check_template(template), SEEN) == text


def test_values_are_not_filled_again() -> None:
    assert fill("{{ question }}", RewardInput("", "secret", "{{ truth }}")) == "{{ truth }}"


def test_without_an_answer_the_text_behind_the_thought_counts() -> None:
    assert fill("{{ sample.output_text }}", RewardInput("<think>7?</think>\n 8 ", "8")) == "8"


@pytest.mark.parametrize("template", ["{{ item }}", "{{ samples.output_text }}", "{{ sample.tools }}", "{{ truth.x }}"])
def test_unknown_placeholders_are_refused(template: str) -> None:
    with pytest.raises(ValidationError, match=r"is unknown; use item\.COLUMN, question, truth, sample\.output_text"):
        StringCheckReward(input=template)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ item.age }}", "item.age: there is no 'age'"),
        ("{{ item.more.tags.2 }}", "there is no '2'"),
        ("{{ item.name.first }}", "there is no 'first'"),
        ("{{ sample.output_json.street }}", "there is no 'street'"),
    ],
)
def test_a_value_that_is_missing_is_an_error(template: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        fill(template, SEEN)
    with pytest.raises(ValueError, match="the output is not JSON"):
        fill("{{ sample.output_json.city }}", RewardInput("Bern", ""))


@pytest.mark.parametrize(
    ("operation", "output", "reference", "score"),
    [
        ("eq", "Bern", " Bern\n", 1.0),
        ("eq", "bern", "Bern", 0.0),
        ("ne", "bern", "Bern", 1.0),
        ("ne", "Bern", "Bern", 0.0),
        ("like", "It is Bern.", "Bern", 1.0),
        ("like", "It is bern.", "Bern", 0.0),
        ("like", "Bern", "It is Bern.", 0.0),
        ("ilike", "It is bern.", "BERN", 1.0),
        ("like", "anything", "", 0.0),
    ],
)
def test_string_check(operation: Any, output: str, reference: str, score: float) -> None:
    assert StringCheckReward(operation=operation).settle(RewardInput(f"<answer>{output}</answer>", reference)) == score


@pytest.mark.parametrize(
    ("measure", "text", "reference", "score"),
    [
        ("fuzzy_match", "abcd", "abxd", 0.75),  # 2 x 3 common of 8 characters
        ("fuzzy_match", "ABC", "abc", 0.0),
        ("rouge_1", "The cat sat", "the cat, the mat", 4 / 7),  # 2 common words of 3 and 4
        ("rouge_2", "the cat sat", "the cat the mat", 2 / 5),  # 1 common pair of 2 and 3
        ("rouge_3", "a b c d", "x a b c", 1 / 2),  # 1 of 2 and 2
        ("rouge_5", "a b", "a b", 0.0),  # neither has five words
        ("rouge_l", "a x b y c", "a b c", 6 / 8),
        ("gleu", "a b c", "a b d", 3 / 6),  # 2 words and 1 pair of 3 + 2 + 1
        ("bleu", "a b c d", "a b c d", 1.0),
        ("bleu", "a b", "a c", (1 / 2 * 0.1 / 1) ** 0.5),  # words 1/2; pairs 0 of 1, smoothed to 0.1
        ("meteor", "a b", "c d", 0.0),
        ("meteor", "running dogs", "run dog", 1 - 0.5 * (1 / 2) ** 3),  # both stems are equal, in one chunk of two
        ("rouge_1", "...", "a", 0.0),
    ],
)
def test_similarities(measure: Any, text: str, reference: str, score: float) -> None:
    assert similarity(measure, text, reference) == pytest.approx(score)


def test_equal_and_empty_texts_need_no_process() -> None:
    reward = TextSimilarityReward(evaluation_metric="bleu")
    assert reward.settle(RewardInput("<answer> yes </answer>", "yes")) == 1.0
    assert reward.settle(RewardInput("<answer></answer>", "yes")) == 0.0
    assert reward.settle(RewardInput("<answer>no</answer>", "yes")) == Deferred("no", "yes")
    with pytest.raises(ValueError, match="more than 20000 characters"):
        reward.settle(RewardInput("a" * 20_001, "yes"))
