"""Answers in `<answer>`, in `\\boxed{}` or as the last number, and completions of a prompt that opens `<think>`."""

import copy
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from calibrl_core.config import EvaluateSettings
from calibrl_core.data.prompts import PromptFormat
from calibrl_core.data.schema import Example
from calibrl_core.models.encoding import PromptEncoder
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.token_buffers import TokenBuffers
from calibrl_core.verifiers import ChoiceReward, ExactReward, FormatReward, MathReward, NumericReward
from calibrl_core.verifiers.base import AnswerForm, final_answer, follows_format
from calibrl_core.verifiers.scorer import Scorer

OPENS = "{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}<|assistant|>{{ '<think>\n' }}"
CLOSED = OPENS + "{% if not thinking %}{{ '\n</think>\n\n' }}{% endif %}"


@pytest.mark.parametrize(
    ("completion", "form", "answer"),
    [
        (r"The answer is \boxed{7}.", "answer", None),
        (r"The answer is \boxed{7}.", "boxed", "7"),
        (r"\boxed{6}, no: \boxed{\frac{1}{2}}", "boxed", r"\frac{1}{2}"),
        (r"\boxed{7", "boxed", None),
        ("<answer>7</answer>", "boxed", None),
        ("3 + 4 = 7.", "last", "7"),
        ("It costs $1,234.50.", "last", "1,234.50"),
        ("x = -3", "last", "-3"),
        ("x = 5-3", "last", "3"),
        ("one half, 1/2", "last", "1/2"),
        ("that is 50%", "last", "50%"),
        ("so .5", "last", ".5"),
        ("1,2000", "last", "2000"),
        ("nothing", "last", None),
    ],
)
def test_the_answer_is_read_where_the_setting_says(completion: str, form: AnswerForm, answer: str | None) -> None:
    assert final_answer(completion, form) == answer


@pytest.mark.parametrize("verifier", [MathReward, ExactReward, NumericReward])
def test_verifiers_judge_the_answer_at_its_place(verifier: Any) -> None:
    assert verifier().score(r"The answer is \boxed{7}.", "7") == 0.0
    assert verifier(answer_in="boxed").score(r"The answer is \boxed{7}.", "7") == 1.0
    assert verifier(answer_in="last").score("First 6, then 7.", "7") == 1.0
    assert verifier(answer_in="last").score("First 7, then 6.", "7") == 0.0


def test_options_can_be_boxed() -> None:
    assert ChoiceReward(answer_in="boxed").score(r"It is \boxed{B}.", "B") == 1.0


@pytest.mark.parametrize(
    ("completion", "form", "follows"),
    [
        (r"<think>Add.</think> So \boxed{7}.", "boxed", True),
        (r"<think>Add: \boxed{7}.</think> So 7.", "boxed", False),
        (r"\boxed{7}", "boxed", False),
        (r"<think></think>\boxed{7}", "boxed", False),
        ("<think>Add.</think> So 7.", "last", True),
        ("<think>7</think> So.", "last", False),
        (r"<think>Add.</think><answer>\boxed{7}</answer>", "answer", True),
    ],
)
def test_the_format_has_the_answer_behind_the_thought(completion: str, form: AnswerForm, follows: bool) -> None:
    assert follows_format(completion, form) is follows
    assert FormatReward(answer_in=form).score(completion, "7") == float(follows)


def test_a_boxed_answer_can_be_strict() -> None:
    with Scorer([MathReward(answer_in="boxed"), FormatReward(answer_in="boxed")]) as scorer:
        (score,) = scorer.score_all([r"<think>Add.</think> \boxed{7}"], ["7"])
    assert (score.reward, score.passed, score.strict) == (1.1, True, True)


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ([{"type": "math", "answer_in": "boxed"}, {"type": "format"}], "math in boxed, format in answer"),
        ([{"type": "choice", "answer_in": "last"}], "a number names no option"),
    ],
)
def test_places_that_cannot_work_are_refused(rewards: list[Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluateSettings.model_validate({"rewards": rewards})


def encoder(policy: Policy, template: str | None, **variables: Any) -> PromptEncoder:
    form = PromptFormat(chat_template=template, chat_template_kwargs=variables)
    return PromptEncoder(copy.deepcopy(policy.processor), None, form)


def test_the_opening_is_the_end_of_the_prompt_from_think_on(policy: Policy) -> None:
    assert encoder(policy, None).opening == ""
    assert encoder(policy, OPENS).opening == "<think>\n"
    assert encoder(policy, CLOSED, thinking=True).opening == "<think>\n"
    assert encoder(policy, CLOSED, thinking=False).opening == "<think>\n\n</think>\n\n"


def test_completions_and_experts_continue_the_opening(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    written = "I add.</think><answer>7</answer>"
    tokens = torch.tensor([policy.tokenizer(written, add_special_tokens=False).input_ids])  # [1, T]
    values = torch.zeros(tokens.shape)
    buffers = TokenBuffers(tokens, torch.ones(tokens.shape, dtype=torch.bool), values, values, values)
    assert not follows_format(buffers.rollouts(policy, 1).texts[0])
    expert = Example(id="x", question="3+4?", answer="7", expert=f"<think>{written}")
    whole, _ = policy.tokenize_experts([expert], 99)
    monkeypatch.setattr(policy, "encoder", encoder(policy, OPENS))
    (text,) = buffers.rollouts(policy, 1).texts
    assert (text, follows_format(text)) == (f"<think>\n{written}", True)
    continued, _ = policy.tokenize_experts([expert], 99)
    assert continued[0].tolist() == whole[0, 1:].tolist()  # <think> is one token
