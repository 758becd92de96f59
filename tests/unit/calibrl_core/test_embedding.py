"""The reward `embedding`: cosines of vectors, from a service in the form of OpenAI's."""

from typing import Any

import pytest
from pydantic import SecretStr

from calibrl_core.verifiers import embedding
from calibrl_core.verifiers.embedding import EmbeddingReward
from calibrl_core.verifiers.scorer import Score, Scorer
from calibrl_core.verifiers.services import Endpoint, RewardServiceError, Services
from tests.support.reward_service import Answer, Asked, Service, serving

VECTORS = {"cat": [1.0, 0.0], "dog": [0.6, 0.8], "not": [-1.0, 0.0], "nothing": [0.0, 0.0]}


def embedded(asked: Asked) -> Answer:
    rows = [{"index": index, "embedding": VECTORS[text]} for index, text in enumerate(asked.body["input"])]
    return 200, {"data": rows[::-1]}


def scores(service: Service, *texts: str) -> list[Score]:
    endpoint = Endpoint(url=f"{service.url}/v1", key=SecretStr("sk-1"), model="bge", requests_at_once=1)
    with Scorer([EmbeddingReward()], services=Services(endpoints={"embeddings": endpoint})) as scorer:
        return scorer.score_all(texts, ["cat"] * len(texts))


def test_the_cosine_of_two_texts_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "PAIRS", 3)
    with serving(embedded) as service:
        found = scores(service, "cat", "dog", "not", "nothing", "")
    assert [score.reward for score in found] == pytest.approx([1.0, 0.6, 0.0, 0.0, 0.0])
    assert [len(asked.body["input"]) for asked in service.asked] == [6, 2]
    assert (service.asked[0].path, service.asked[0].body["model"]) == ("/v1/embeddings", "bge")
    assert service.asked[0].headers["authorization"] == "Bearer sk-1"


@pytest.mark.parametrize(
    "answer",
    [
        {"data": [{"index": 0, "embedding": [1.0]}]},
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}]},
        {"data": [{"index": 0, "embedding": "AAAA"}, {"index": 1, "embedding": "AAAA"}]},
        {"data": None},
        [],
    ],
)
def test_an_answer_without_vectors_is_a_missing_verdict(answer: Any) -> None:
    with serving(lambda asked: (200, answer)) as service:
        (found,) = scores(service, "dog")
    assert found.failure == "embedding: the answer must have 2 embeddings of one length"


def test_a_model_must_be_named_somewhere() -> None:
    services = Services(endpoints={"embeddings": Endpoint(url="http://e/v1")})
    with pytest.raises(RewardServiceError, match="'embeddings' has no model of its own: set model"):
        Scorer([EmbeddingReward()], services=services)
    with pytest.raises(RewardServiceError, match="no endpoint 'embeddings' here"):
        Scorer([EmbeddingReward(model="bge")])
