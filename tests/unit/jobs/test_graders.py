"""OpenAI's graders as rewards and back, and the column that they take the answer from."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from calibrl.schemas.graders import Grader
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.services import Endpoint, RewardServiceError, Services
from jobs.openai.graders import grader_of, image_columns, is_exact, item_paths, reward_of

OUTPUT, REFERENCE = "{{ sample.output_text }}", "{{ item.reference_answer }}"
CHECK = {"type": "string_check", "name": "same-city", "input": OUTPUT, "reference": REFERENCE, "operation": "ilike"}
SIMILAR = {"type": "text_similarity", "name": "s", "input": OUTPUT, "reference": REFERENCE, "evaluation_metric": "bleu"}
ASKED = [{"role": "user", "content": "Is {{ sample.output_text }} about {{ item.topic.name }}?"}]
SCORE = {"type": "score_model", "name": "judge", "model": "local/qwen", "input": ASKED, "range": [0.0, 5.0]}
LABEL = {
    "type": "label_model",
    "name": "label",
    "model": "local/qwen",
    "input": ASKED,
    "labels": ["good", "bad"],
    "passing_labels": ["good"],
}
SOURCE = "def grade(sample, item):\n    return float(item['level'] > 1 and item.get(\"tag\") == 'a')\n"
PYTHON = {"type": "python", "name": "f", "source": SOURCE}
MULTI = {"type": "multi", "name": "m", "graders": {"a": CHECK, "b": SCORE}, "calculate_output": "0.5 * a + 0.1 * b"}
SERVICES = Services(endpoints={"local": Endpoint(url="http://judge/v1")})


def grader(given: Any) -> Grader:
    return TypeAdapter[Grader](Grader).validate_python(given)


def reward(given: Any, services: Services = SERVICES) -> Any:
    return TypeAdapter[Reward](Reward).validate_python(reward_of(grader(given), services))


@pytest.mark.parametrize("given", [CHECK, SIMILAR, SCORE, LABEL, PYTHON, MULTI], ids=lambda one: one["type"])
def test_a_grader_becomes_a_reward_and_is_shown_as_it_was_sent(given: Any) -> None:
    shown = grader_of(reward(given).model_dump(mode="json"))
    assert shown == given


def test_a_name_becomes_one_that_metrics_can_have() -> None:
    assert reward(CHECK | {"name": "same city!"}).label == "same-city"
    assert reward(CHECK | {"name": "!"}).label == "grader"


def test_the_settings_of_a_model_grader_are_kept() -> None:
    sampling = {"temperature": 0.5, "top_p": 0.9, "seed": 3, "max_completions_tokens": 77}
    made = reward(SCORE | {"sampling_params": sampling})
    assert (made.endpoint, made.model, made.range, made.images) == ("local", "qwen", (0.0, 5.0), False)
    assert (made.temperature, made.top_p, made.seed, made.max_completion_tokens) == (0.5, 0.9, 3, 77)
    assert reward(LABEL).labels == ("good", "bad")


def test_other_names_and_forms_of_the_guide_are_taken() -> None:
    sampling = {"reasoning_effort": "low", "max_tokens": 55}
    content = ["Look: ", {"type": "input_text", "text": OUTPUT}]
    given = SCORE | {
        "pass_threshold": 0.5,
        "sampling_params": sampling,
        "input": [{"role": "user", "content": content}],
    }
    made = reward(given)
    assert (made.reasoning_effort, made.max_completion_tokens) == ("low", 55)
    assert [part.content for part in made.messages[0].content] == ["Look: ", OUTPUT]
    assert reward(SIMILAR | {"pass_threshold": 0.8}).evaluation_metric == "bleu"
    nameless = {"type": "multi", "graders": {"a": CHECK}, "calculate_output": "a"}
    assert reward(nameless).label == "multi"


def test_a_column_of_images_means_those_of_the_prompt() -> None:
    parts = [
        {"type": "input_text", "text": "Look: "},
        {"type": "input_image", "image_url": "{{ item.image }}"},
        {"type": "input_image", "image_url": "https://a/b.png"},
    ]
    made = reward(SCORE | {"input": [{"role": "user", "content": parts}]})
    assert made.images is True
    assert [(part.type, part.content) for part in made.messages[0].content] == [
        ("text", "Look: "),
        ("image", "https://a/b.png"),
    ]


@pytest.mark.parametrize(
    ("model", "endpoints", "place"),
    [
        ("one/m", ["one", "two"], ("one", "m")),
        ("org/m", ["one"], ("one", "org/m")),
        ("gpt-4o", ["one", "default"], ("default", "gpt-4o")),
    ],
)
def test_the_endpoint_of_a_model(model: str, endpoints: list[str], place: Any) -> None:
    services = Services(endpoints={name: Endpoint(url="http://judge/v1") for name in endpoints})
    made = reward(SCORE | {"model": model}, services)
    assert (made.endpoint, made.model) == place


def test_a_model_without_an_endpoint_is_refused() -> None:
    services = Services(endpoints={name: Endpoint(url="http://judge/v1") for name in ("one", "two")})
    for given, there_is in ((services, "one, two"), (Services(), "none")):
        with pytest.raises(RewardServiceError, match=rf"'gpt-4o': write ENDPOINT/MODEL \(there is: {there_is}\)"):
            reward_of(grader(SCORE | {"model": "gpt-4o"}), given)


def test_cosine_needs_an_endpoint_of_embeddings() -> None:
    cosine = SIMILAR | {"evaluation_metric": "cosine"}
    with pytest.raises(RewardServiceError, match="cosine needs embeddings: let an administrator add the endpoint"):
        reward(cosine)
    made = reward(cosine, Services(endpoints={"embeddings": Endpoint(url="http://e/v1", model="bge")}))
    assert (made.type, made.endpoint) == ("embedding", "embeddings")
    assert grader_of(made.model_dump(mode="json")) == cosine


def test_a_multi_grader_may_hold_one_grader_as_the_clients_types_say() -> None:
    made = grader({**MULTI, "graders": CHECK | {"name": "a"}, "calculate_output": "a"})
    assert list(made.graders) == ["a"]  # type: ignore[union-attr]


def test_a_multi_grader_with_a_model_drops_groups_without_a_score() -> None:
    assert reward(MULTI).on_failure == "drop_group"
    assert reward({**MULTI, "graders": {"a": CHECK}, "calculate_output": "a"}).on_failure == "zero"


def test_the_columns_that_graders_read() -> None:
    assert item_paths(grader(CHECK)) == ["reference_answer"]
    assert item_paths(grader(MULTI)) == ["reference_answer", "topic.name"]
    assert item_paths(grader(PYTHON)) == ["level", "tag"]
    assert item_paths(grader(CHECK | {"reference": "{{ item.answers[0].text }}"})) == ["answers.0.text"]


def test_the_columns_of_images_that_graders_show() -> None:
    parts = [{"type": "input_image", "image_url": url} for url in ("{{ item.a }}", "{{ item.b[0] }}", "https://c")]
    shown = grader(SCORE | {"input": [{"role": "user", "content": parts}]})
    assert image_columns(shown) == ["a", "b"]
    assert image_columns(grader(MULTI)) == []


INNER = {"operation": "eq", "reference": "{{ item.answers[0] }}"}


def test_equality_with_a_column_is_the_verifier_exact() -> None:
    assert is_exact(grader(CHECK | {"operation": "eq"}))
    for other in ({}, {"operation": "eq", "reference": "yes"}, {"operation": "eq", "input": "a {{ item.x }}"}, INNER):
        assert not is_exact(grader(CHECK | other))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (SIMILAR | {"evaluation_metric": "jaccard"}, "evaluation_metric"),
        (CHECK | {"reference": "{{ items.x }}"}, "is unknown"),
        (SCORE | {"sampling_params": {"reasoning_effort": "some"}}, "reasoning_effort"),
        (SCORE | {"sampling_params": {"max_tokens": 9, "max_completions_tokens": 9}}, "are one setting"),
        (CHECK | {"input": "{{ sample.output_tools[0].function.name }}"}, "models call no tools here"),
        ({**MULTI, "graders": {"m": MULTI}}, "multi"),
    ],
)
def test_what_cannot_be_done_is_refused(given: Any, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        grader(given)
    with pytest.raises(ValidationError, match="names 'c'; there are a, b"):
        reward(MULTI | {"calculate_output": "c"})
