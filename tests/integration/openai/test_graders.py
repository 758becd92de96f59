"""The official client of OpenAI, unchanged, against the served API: graders, checked, run, and in jobs."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from jobs.settings import get_settings
from tests.support.openai_requests import GRADED, create, fault, upload, uuid
from tests.support.pictures import png
from tests.support.reward_service import Answer, Asked, Service, serving

pytestmark = pytest.mark.integration

PICTURE = base64.b64encode(png()).decode()
OUTPUT = "{{ sample.output_text }}"
CHECK: Any = {
    "type": "string_check",
    "name": "contains",
    "input": OUTPUT,
    "reference": "{{ item.reference_answer }}",
    "operation": "ilike",
}
SIMILAR: Any = {
    "type": "text_similarity",
    "name": "alike",
    "input": OUTPUT,
    "reference": "{{item.reference_answer}}",
    "evaluation_metric": "rouge_l",
}
SCORE: Any = {
    "type": "score_model",
    "name": "judge",
    "model": "local/small",
    "input": [{"role": "user", "content": "How good is {{ sample.output_text }}?"}],
    "range": [0.0, 10.0],
}
LABEL: Any = {
    "type": "label_model",
    "name": "label",
    "model": "small",
    "input": [{"role": "developer", "content": "Choose."}, {"role": "user", "content": OUTPUT}],
    "labels": ["good", "bad"],
    "passing_labels": ["good"],
}
PYTHON: Any = {
    "type": "python",
    "name": "length",
    "source": "def grade(sample, item):\n    return len(sample['output_text']) / item['longest']\n",
}


@pytest.fixture(autouse=True)
def judging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Serve a judge that gives 7, or the label good."""

    def answer(asked: Asked) -> Answer:
        text = asked.body["messages"][-1]["content"]
        verdict = {"label": "good"} if '"label"' in text else {"score": 7}
        message = {"content": json.dumps({"explanation": "", **verdict})}
        refused = {"content": None, "refusal": "I cannot."}
        choice = {"message": refused if "refuse" in text else message}
        return 200, {"choices": [choice], "usage": {"total_tokens": 12}}

    with serving(answer) as service:
        endpoints = {"*": {"local": {"url": f"{service.url}/v1", "key": "sk-1"}}}
        monkeypatch.setenv("CALIBRL_REWARD_ENDPOINTS", json.dumps(endpoints))
        monkeypatch.setenv("CALIBRL_FUNCTIONS_WITHOUT_SANDBOX", "true")
        get_settings.cache_clear()
        yield service
    get_settings.cache_clear()


def run(client: OpenAI, grader: Any, sample: str, **item: Any) -> Any:
    return client.fine_tuning.alpha.graders.run(grader=grader, model_sample=sample, item=item)


@pytest.mark.parametrize(
    ("grader", "sample", "item", "reward"),
    [
        (CHECK, "It is BERN.", {"reference_answer": "Bern"}, 1.0),
        (CHECK, "<think>Bern</think><answer>Rome</answer>", {"reference_answer": "Bern"}, 0.0),
        (SIMILAR, "a x b", {"reference_answer": "a b c"}, 4 / 6),  # two of three and three words
        (SCORE, "fine", {}, 7.0),
        (LABEL, "fine", {}, 1.0),
        (PYTHON, "four", {"longest": 8}, 0.5),
    ],
)
def test_each_grader_runs_on_one_output(client: OpenAI, grader: Any, sample: str, item: Any, reward: float) -> None:
    found = run(client, grader, sample, **item)
    assert found.reward == pytest.approx(reward)
    assert (found.metadata.name, found.metadata.type, found.sub_rewards) == (grader["name"], grader["type"], {})
    assert found.metadata.scores == {grader["name"]: found.reward}
    assert not any(value for value in found.metadata.errors.model_dump().values())
    assert found.metadata.execution_time >= 0


def test_samples_of_the_guide_run_as_they_are(client: OpenAI, judging: Service) -> None:
    answers = {"answers": ["Rome", "Bern"]}
    first = CHECK | {"operation": "eq", "reference": "{{ item.answers[1] }}"}
    assert run(client, first, "Bern", **answers).reward == 1.0
    assert run(client, first | {"reference": "{{ item.answers[0] }}"}, "Bern", **answers).reward == 0.0
    whole = {"input": "{{ sample.choices[0].message.content }}", "reference": "<answer>"}
    assert run(client, CHECK | whole, "<answer>Bern</answer>").reward == 1.0
    model = SCORE | {"pass_threshold": 5, "sampling_params": {"reasoning_effort": "low", "max_tokens": 99}}
    assert run(client, model, "x").reward == 7.0
    assert (judging.asked[-1].body["reasoning_effort"], judging.asked[-1].body["max_completion_tokens"]) == ("low", 99)
    nameless = {"type": "multi", "graders": {"a": CHECK}, "calculate_output": "a"}
    assert run(client, nameless, "Bern", reference_answer="Bern").reward == 1.0


def test_a_model_sees_the_images_of_the_item(client: OpenAI, judging: Service) -> None:
    parts = [{"type": "input_image", "image_url": "{{ item.picture }}"}, {"type": "input_text", "text": OUTPUT}]
    looks = SCORE | {"input": [{"role": "user", "content": parts}]}
    assert run(client, looks, "a square", picture=f"data:image/png;base64,{PICTURE}").reward == 7.0
    shown, text, _ = judging.asked[-1].body["messages"][0]["content"]
    assert shown["image_url"]["url"].startswith("data:image/png;base64,") and text["text"] == "a square"
    for picture in ("https://example.com/a.png", "no picture", None):
        with pytest.raises(openai.BadRequestError, match="picture") as error:
            run(client, looks, "a square", picture=picture)
        assert fault(error.value) == ("item", "invalid")


def test_a_multi_grader_shows_the_scores_of_its_parts(client: OpenAI, judging: Service) -> None:
    grader = {
        "type": "multi",
        "name": "both",
        "graders": {"right": CHECK, "good": SCORE},
        "calculate_output": "0.5 * right + 0.05 * good",
    }
    found = run(client, grader, "Bern", reference_answer="bern")
    assert found.reward == pytest.approx(0.85)
    assert found.sub_rewards == {"right": 1.0, "good": 7.0}
    assert judging.asked[0].headers["authorization"] == "Bearer sk-1"


def test_a_missing_score_has_its_reason(client: OpenAI, judging: Service) -> None:
    found = run(client, CHECK, "x")
    assert (found.reward, found.metadata.errors.invalid_variable_error) == (0.0, True)
    found = run(client, CHECK | {"input": "{{ sample.output_json.city }}"}, "x", reference_answer="Bern")
    assert found.metadata.errors.sample_parse_error is True
    found = run(client, PYTHON, "x")
    assert found.metadata.errors.python_grader_runtime_error is True
    assert "KeyError" in found.metadata.errors.python_grader_runtime_error_details
    found = run(client, SCORE | {"range": [0.0, 5.0]}, "x")
    assert found.metadata.errors.api_model_grader_parse_error is True
    refusing = SCORE | {"input": [{"role": "user", "content": "refuse"}]}
    found = run(client, refusing, "x")
    assert found.metadata.errors.api_model_grader_refusal_error is True
    assert (found.metadata.token_usage, found.api_model_grader_token_usage_per_model) == (
        12,
        {"small": {"total_tokens": 12}},
    )
    divides = {"type": "multi", "name": "m", "graders": {"a": CHECK}, "calculate_output": "1 / (a - 1)"}
    found = run(client, divides, "x", reference_answer="x")
    assert (found.reward, found.metadata.errors.other_error) == (0.0, True)


@pytest.mark.parametrize("grader", [CHECK, SIMILAR, SCORE, PYTHON], ids=lambda one: one["type"])
def test_a_valid_grader_is_returned(client: OpenAI, grader: Any) -> None:
    found = client.fine_tuning.alpha.graders.validate(grader=grader)
    assert found.grader is not None
    assert found.grader.model_dump(exclude_none=True) == grader


@pytest.mark.parametrize(
    ("grader", "why"),
    [
        (SCORE | {"model": "cloud/gpt", "input": [{"role": "user", "content": "{{ item }}"}]}, "is unknown; use item"),
        (PYTHON | {"source": "def score(sample): return 1"}, "grade"),
        (PYTHON | {"source": "import rapidfuzz\ndef grade(a, b): return 1"}, "line 1: the sandbox has no 'rapidfuzz'"),
        (SIMILAR | {"evaluation_metric": "cosine"}, "cosine needs embeddings: let an administrator"),
        ({"type": "multi", "name": "m", "graders": {"a": CHECK}, "calculate_output": "b"}, "names 'b'; there are a"),
    ],
)
def test_a_grader_that_cannot_work_is_refused(client: OpenAI, grader: Any, why: str) -> None:
    for refused in (client.fine_tuning.alpha.graders.validate, lambda grader: run(client, grader, "x")):
        with pytest.raises(openai.BadRequestError, match=why) as error:
            refused(grader=grader)
        param, code = fault(error.value)
        assert (param or "").startswith("grader") and code == "invalid"


def test_a_job_learns_from_any_grader(client: OpenAI, api: httpx.Client) -> None:
    file = upload(client, GRADED)
    graders = {"a": CHECK, "b": SCORE}
    multi = {"type": "multi", "name": "mix", "graders": graders, "calculate_output": "(a + b / 10) / 2"}
    method: Any = {"type": "reinforcement", "reinforcement": {"grader": multi}}
    job = create(client, training_file=file.id, method=method)
    assert job.method is not None and job.method.reinforcement is not None
    assert job.method.reinforcement.grader.to_dict() == multi
    spec = api.get(f"/v1/jobs/{uuid(job)}").json()["spec"]
    assert spec["data"]["answer"] == "reference_answer"
    (reward,) = spec["rewards"]
    assert (reward["type"], reward["name"], reward["on_failure"]) == ("multi", "mix", "drop_group")
    assert reward["rewards"]["b"]["endpoint"] == "local"
    unknown: Any = {"type": "reinforcement", "reinforcement": {"grader": CHECK | {"reference": "{{ item.city }}"}}}
    with pytest.raises(openai.BadRequestError, match="no row has a column 'city'"):
        create(client, training_file=file.id, method=unknown)
