"""Rewards of a model that judges: what it is asked, and how its answers are read."""

import json
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from calibrl_core.data.schema import Example, completed
from calibrl_core.diagnostics.reward import _verdicts
from calibrl_core.verifiers import remote
from calibrl_core.verifiers.judge import JudgeReward, data_url
from calibrl_core.verifiers.scorer import Score, Scorer
from calibrl_core.verifiers.services import Endpoint, RewardServiceError, Services
from tests.support.reward_service import Answer, Asked, Service, serving

EXAMPLE = Example("1", "What is shown?", "a cat", images=(b"\x89PNG...",), item={"style": "brief"})
MESSAGES = [
    {"role": "system", "content": "Be {{ item.style }}."},
    {"content": "Is {{ sample.output_text }} the same as {{ truth }}?"},
]
LABELS = {"labels": ["right", "nearly", "wrong"], "passing_labels": ["right", "nearly"]}


def said(text: Any, **choice: Any) -> Answer:
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | choice]}


def judge(**settings: Any) -> JudgeReward:
    return JudgeReward.model_validate({"endpoint": "local", "model": "m", "messages": MESSAGES} | settings)


def scores(service: Service, *texts: str, **settings: Any) -> list[Score]:
    endpoint = Endpoint(url=f"{service.url}/v1/", key=SecretStr("sk-1"), requests_at_once=1)
    with Scorer([judge(**settings)], services=Services(endpoints={"local": endpoint})) as scorer:
        return scorer.grade(completed([EXAMPLE], texts))


def test_a_judge_is_asked_for_json_about_filled_templates_and_images() -> None:
    with serving(lambda asked: said('{"explanation": "so", "score": 0.75}')) as service:
        first, again = scores(service, "<answer>a dog</answer>", "<think>x</think><answer>a dog</answer>")
    assert (first.by_verifier, first.passed) == ({"judge": 0.75}, True)
    assert again.cached == ("judge",)  # the judge sees the same texts
    (asked,) = service.asked
    assert (asked.path, asked.headers["authorization"]) == ("/v1/chat/completions", "Bearer sk-1")
    assert (asked.body["model"], asked.body["temperature"], asked.body["max_completion_tokens"]) == ("m", 0.0, 1024)
    system, user = asked.body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"] == [
        {"type": "image_url", "image_url": {"url": data_url(b"\x89PNG...")}},
        {"type": "text", "text": "Is a dog the same as a cat?"},
        {"type": "text", "text": 'Answer with JSON: {"explanation": "...", "score": a number from 0 to 1}'},
    ]
    schema = asked.body["response_format"]["json_schema"]["schema"]
    assert schema["properties"] == {"explanation": {"type": "string"}, "score": {"type": "number"}}


def test_without_images_the_judge_gets_plain_text() -> None:
    with serving(lambda asked: said('{"explanation": "", "label": "right"}')) as service:
        scores(service, "a", images=False, **LABELS)
    text = service.asked[0].body["messages"][-1]["content"]
    assert text.startswith("Is a the same as a cat?\n\nAnswer with JSON: ")
    assert '"label": one of ["right", "nearly", "wrong"]' in text
    enum = service.asked[0].body["response_format"]["json_schema"]["schema"]["properties"]["label"]
    assert enum == {"type": "string", "enum": ["right", "nearly", "wrong"]}


@pytest.mark.parametrize(
    ("text", "settings", "score"),
    [
        ('{"explanation": "", "score": 7}', {"range": (0, 10)}, 0.7),
        ('{"explanation": "", "score": -1}', {"range": (-1, 1)}, 0.0),
        ('Let me see {"a": 1}.\n```json\n{"explanation": "so", "score": 0.5}\n```', {}, 0.5),
        ('{"explanation": "", "label": "nearly"}', LABELS, 1.0),
        ('{"explanation": "", "label": "wrong"}', LABELS, 0.0),
    ],
)
def test_scores_and_labels_are_read(text: str, settings: Any, score: float) -> None:
    with serving(lambda asked: said(text)) as service:
        (found,) = scores(service, "a", **settings)
    assert (found.by_verifier, found.failure) == ({"judge": score}, None)


@pytest.mark.parametrize(
    ("answer", "settings", "why"),
    [
        (said('{"score": 11}'), {"range": (0, 10)}, "the judge gave 11, outside its range"),
        (said("I would say 7 of 10"), {}, "the judge gave no score: 'I would say 7 of 10'"),
        (said('{"score": true}'), {}, "the judge gave no score"),
        (said('{"score": NaN}'), {}, "the judge gave nan, outside its range"),
        (said('{"label": "perfect"}'), LABELS, "the judge gave no label"),
        (said(None), {}, "the judge gave no score: ''"),
        (said('{"explanation": "so', finish_reason="length"), {}, "was cut: raise max_completion_tokens"),
        ((200, {"choices": []}), {}, "has no choices[0].message.content"),
        ((401, {"error": "key"}), {}, "status 401"),
    ],
)
def test_an_answer_without_a_verdict_is_a_missing_one(answer: Answer, settings: Any, why: str) -> None:
    with serving(lambda asked: answer) as service:
        (found,) = scores(service, "a", **settings)
    assert why in (found.failure or "")
    assert "sk-1" not in str(found)


REFUSED = {"message": {"role": "assistant", "content": None, "refusal": "I cannot."}}


def test_tokens_and_refusals_of_the_judge_are_counted() -> None:
    def answer(asked: Asked) -> Answer:
        answered = said(None, **REFUSED) if "Is b the" in json.dumps(asked.body) else said('{"score": 1}')
        return answered[0], answered[1] | {"usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}}

    with serving(answer) as service:
        found = scores(service, "a", "b", "a")
    assert [score.tokens for score in found] == [{"judge": 25}, {"judge": 25}, {}]  # the third one was known
    assert [score.refused for score in found] == [(), ("judge",), ()]
    assert found[1].failure == "judge: the judge refused: 'I cannot.'"
    values = _verdicts(found)
    assert (values["verdict/tokens/judge"], values["verdict/refusals/judge"]) == (50.0, 1.0)


def test_a_filtered_answer_and_an_odd_usage_are_read() -> None:
    filtered = said(None, finish_reason="content_filter")
    with serving(lambda asked: (filtered[0], filtered[1] | {"usage": "many"})) as service:
        (found,) = scores(service, "a")
    assert (found.refused, found.tokens, found.failed) == (("judge",), {}, ("judge",))


def test_an_endpoint_without_schemas_is_asked_without() -> None:
    def refusing(asked: Asked) -> Answer:
        if "response_format" in asked.body:
            return 400, {"error": {"message": "response_format is not supported"}}
        return said('{"explanation": "", "score": 1}')

    with serving(refusing) as service:
        found = scores(service, "a", "b")
    assert [score.reward for score in found] == [1.0, 1.0]
    assert ["response_format" in asked.body for asked in service.asked] == [True, False, False]


def test_answers_that_cannot_be_read_do_not_end_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def reading_badly(asked: Asked) -> Answer:
        return said('{"score": 1}') if "Is e the" in json.dumps(asked.body) else said("no")

    with serving(reading_badly) as service:
        found = scores(service, *"abcde")
    assert [score.failure is None for score in found] == [False] * 4 + [True]
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.0)
    with serving(lambda asked: (503, {})) as service:
        scores(service, *"abcde", retries=0)
    assert len(service.asked) == 3  # the endpoint is down


def test_an_endpoint_must_be_configured() -> None:
    with pytest.raises(RewardServiceError, match=r"no endpoint 'local' here \(there is: other\): an admin"):
        Scorer([judge()], services=Services(endpoints={"other": Endpoint(url="http://a/v1")}))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"range": (1, 0)}, "range"),
        ({"labels": ["a", "b"]}, "passing_labels: name the labels that score 1"),
        ({"labels": ["a", "b"], "passing_labels": ["c"]}, "passing_labels: c is not in labels"),
        ({"passing_labels": ["c"]}, "c is not in labels"),
        ({"messages": [{"content": "{{ output }}"}]}, "is unknown"),
        ({"key": "sk-1"}, "Extra inputs are not permitted"),
        ({"url": "http://evil"}, "Extra inputs are not permitted"),
    ],
)
def test_settings_without_sense_are_refused(settings: Any, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        judge(**settings)
