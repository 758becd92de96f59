"""Evaluations over real HTTP: what they found, how models compare, and stored completions scored again."""

import json
import shutil
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from api.routes.evaluations import REPLAYING
from calibrl.client import CalibrlError, Client
from calibrl.schemas import JobStatus
from jobs.db import session_scope
from jobs.evaluations import replay
from jobs.repository import accuracies, samples
from tests.support import job_steps
from tests.support.api_users import ApiUsers
from tests.support.processes import processes_with
from tests.support.rest import named, refused, submitted
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration
PROMPTS = [f"{number:016x}" for number in range(100)]
HOSTILE = "(x+y+z+w)^{500}"  # takes math-verify far longer than a second


def right(count: int) -> list[float]:
    """Accuracies of a hundred prompts, of which so many are right."""
    return [1.0] * count + [0.0] * (100 - count)


def result(index: int, split: str, values: list[float]) -> dict[str, Any]:
    accuracy = sum(values) / len(values)
    metrics = {"accuracy": accuracy, "accuracy_low": accuracy - 0.1, "accuracy_high": accuracy + 0.1}
    sources = {"odd": {"prompts": 50, "metrics": metrics}}
    row = {"model": "tiny-vlm", "model_index": index, "split": split, "prompts": len(values), "samples": 1}
    return row | {"metrics": metrics | {"verifier_failures": 2.0, "length_mean": "NaN"}, "sources": sources}


def evaluation(*models: dict[str, list[float]], kept: bool = True, **changes: Any) -> UUID:
    """An evaluation that has ended: of each model its accuracies by split."""
    spec = {
        "kind": "evaluate",
        "name": "measured",
        "models": [{"builtin": "tiny-vlm", "seed": n} for n in range(len(models))],
    }
    data = [{"builtin": "digits", "split": split} for split in models[0]]
    job_id = job_steps.submit_spec({**spec, "data": data, **changes})
    claim = job_steps.claim()
    assert claim.job_id == job_id
    results = []
    with session_scope() as session:
        for index, splits in enumerate(models):
            for split, values in splits.items():
                results.append(result(index, split, values))
                if kept:
                    accuracies.put(session, job_id, index, split, PROMPTS[: len(values)], values)
    between = {"split": "test", "first": 0, "second": 1, "difference": 0.1, "low": 0.0, "high": 0.2}
    comparisons = [{**between, "distinguishable": False}] if len(models) > 1 else []
    job_steps.finish(claim, JobStatus.SUCCEEDED, result={"results": results, "comparisons": comparisons})
    return job_id


def compare(http: httpx.Client, *entries: object, **params: Any) -> httpx.Response:
    return http.get("/v1/evaluations/compare", params={"jobs": ",".join(map(str, entries)), **params})


def test_an_evaluation_s_results_are_typed(http: httpx.Client, client: Client) -> None:
    job_id = evaluation({"test": right(40)}, {"test": right(50)})
    found = client.evaluation(job_id)
    assert [(row.model_index, row.chosen["seed"], row.split) for row in found.results] == [
        (0, 0, "test"),
        (1, 1, "test"),
    ]
    metrics = found.results[0].metrics
    assert metrics.keys() == {"accuracy", "verifier_failures", "length_mean"}
    assert (metrics["accuracy"].value, metrics["accuracy"].low) == pytest.approx((0.4, 0.3))
    assert (metrics["verifier_failures"].value, metrics["verifier_failures"].low) == (2.0, None)
    assert metrics["length_mean"].value is None
    assert found.results[0].sources["odd"].metrics["accuracy"].high == pytest.approx(0.5)
    assert [(pair.first, pair.second, pair.distinguishable) for pair in found.comparisons] == [(0, 1, False)]


def test_only_a_finished_evaluation_has_a_comparison(http: httpx.Client) -> None:
    training = job_steps.submit()
    assert "is a training" in refused(http.get(f"/v1/jobs/{training}/evaluation"), 409)["detail"]
    job_steps.cancel(training)
    evaluating = job_steps.submit_spec(
        {"kind": "evaluate", "name": "x", "models": [{"builtin": "tiny-vlm"}], "data": [{"builtin": "digits"}]}
    )
    assert "has not ended: it is queued" in refused(http.get(f"/v1/jobs/{evaluating}/evaluation"), 409)["detail"]
    assert "has not ended" in refused(compare(http, evaluating), 409)["detail"]
    job_steps.finish(job_steps.claim(), JobStatus.SUCCEEDED, result={"something": "else"})
    assert "format that this version" in refused(http.get(f"/v1/jobs/{evaluating}/evaluation"), 409)["detail"]
    refused(http.get(f"/v1/jobs/{uuid4()}/evaluation"), 404)


def test_two_evaluations_are_compared_prompt_by_prompt(client: Client) -> None:
    """On `test`, 20 of 100 prompts are right, then the same 20 and 40 more. On the noisy split 49, then 51, with 48
    in common: 3 gained, 1 lost.
    """
    noisy = [*right(48)[:48], 0.0, 1.0, 1.0, 1.0, *right(0)[52:]]
    first = evaluation({"test": right(20), "test-noise": right(49)})
    second = evaluation({"test": right(60), "test-noise": noisy}, rewards=[{"type": "exact"}])
    test, noise = client.compare_evaluations(first, second)
    assert (test.split, test.prompts, test.settings_differ) == ("test", 100, ["rewards"])
    assert [(one.job_id, one.model_index) for one in test.models] == [(first, 0), (second, 0)]
    assert [one.accuracy for one in test.models] == pytest.approx([0.2, 0.6])
    (gained,) = test.pairs
    assert gained.difference == pytest.approx(0.4) and gained.distinguishable
    assert (gained.low, gained.high) == pytest.approx((0.304, 0.496), abs=0.012)
    (unclear,) = noise.pairs
    assert unclear.difference == pytest.approx(0.02) and not unclear.distinguishable
    assert unclear.low < 0 < unclear.high
    assert client.compare_evaluations(first, second) == [test, noise]
    assert client.compare_evaluations(first, (second, 0), split="test") == [test]
    (other,) = client.compare_evaluations(first, second, split="test", seed=7)
    assert (other.pairs[0].difference, other.seed) == (gained.difference, 7)


def test_accuracies_are_listed_prompt_by_prompt(http: httpx.Client, client: Client) -> None:
    job_id = evaluation({"test": right(20), "test-noise": right(49)}, {"test": right(60), "test-noise": right(30)})
    found = client.accuracies(job_id)
    assert [(one.model_index, one.split, sum(one.values)) for one in found] == [
        (0, "test", 20),
        (0, "test-noise", 49),
        (1, "test", 60),
        (1, "test-noise", 30),
    ]
    assert found[0].prompts == PROMPTS
    assert client.accuracies(job_id, split="test") == [found[0], found[2]]
    path = f"/v1/jobs/{job_id}/accuracies"
    assert "has no dataset 'tset', only test, test-noise" in str(refused(http.get(path, params={"split": "tset"}), 422))
    old = evaluation({"test": right(40)}, kept=False)
    assert str(old) in refused(http.get(f"/v1/jobs/{old}/accuracies"), 409)["detail"]
    refused(http.get(f"/v1/jobs/{job_steps.submit()}/accuracies"), 409)


def test_prompts_pair_by_content_not_by_order(client: Client) -> None:
    first, second = evaluation({"test": right(20)}), evaluation({"test": right(60)})
    (found,) = client.compare_evaluations(first, second)
    with session_scope() as session:
        accuracies.put(session, second, 0, "test", PROMPTS[::-1], right(60)[::-1])
    assert client.compare_evaluations(first, second) == [found]


def test_one_evaluation_s_own_models_are_compared_too(client: Client) -> None:
    job_id = evaluation({"test": right(20)}, {"test": right(60)}, {"test": right(20)})
    (found,) = client.compare_evaluations(job_id)
    assert [(pair.first, pair.second, pair.distinguishable) for pair in found.pairs] == [
        (0, 1, True),
        (0, 2, False),
        (1, 2, True),
    ]
    (chosen,) = client.compare_evaluations((job_id, 2), (job_id, 1))
    assert [one.model_index for one in chosen.models] == [2, 1]
    assert chosen.pairs[0].difference == pytest.approx(0.4)


def test_models_of_jobs_have_the_names_of_these_jobs(http: httpx.Client, client: Client) -> None:
    measured = evaluation({"test": right(20)}, {"test": right(60)})
    training = submitted(http, name="warm-up")["id"]
    model = json.dumps({"from_job": training, "checkpoint": "best"})
    job_steps.run(f"UPDATE jobs SET spec = jsonb_set(spec, '{{models,1}}', '{model}') WHERE id = '{measured}'")
    assert [row.chosen_name for row in client.evaluation(measured).results] == [None, "warm-up"]
    (found,) = client.compare_evaluations(measured)
    assert [model.chosen_name for model in found.models] == [None, "warm-up"]
    http.put("/v1/projects/theirs", json={})
    job_steps.run(f"UPDATE jobs SET project = 'theirs' WHERE id = '{training}'")
    with ApiUsers(http) as users:
        seen = users.get(users.add("ann", {"default": "viewer"}), f"/v1/jobs/{measured}/evaluation").json()
    assert [row["chosen_name"] for row in seen["results"]] == [None, None]


def test_a_refused_comparison_gives_the_reason(http: httpx.Client) -> None:
    first, shorter = evaluation({"test": right(20)}), evaluation({"test": right(20)[:30]})
    assert "of which 30 are the same" in refused(compare(http, first, shorter), 409)["detail"]
    elsewhere = evaluation({"test-noise": right(20)})
    assert "The models share no dataset" in refused(compare(http, first, elsewhere), 409)["detail"]
    assert named(compare(http, first, elsewhere, split="test")) == ["split"]
    old = evaluation({"test": right(20)}, kept=False)
    assert f"/v1/jobs/{old}/evaluation" in refused(compare(http, first, old), 409)["detail"]
    for entries in (
        (first,),
        (first, f"{first}:0"),
        (first, f"{first}:7"),
        ("x",),
        (f"{first}:-1",),
        (first, "0" * 33),
    ):
        assert named(compare(http, *entries)) == ["jobs"]
    assert named(http.get("/v1/evaluations/compare")) == ["jobs"]
    refused(compare(http, first, uuid4()), 404)


def completion(answer: str, *, passed: bool, reward: float | str) -> dict[str, Any]:
    return {"text": f"<answer>{answer}</answer>", "passed": passed, "reward": reward, "tokens": ["x"] * 100}


def trained(*groups: tuple[int, list[dict[str, Any]]]) -> UUID:
    """A training with these completions by step; the truth is 7 each time."""
    job_id = job_steps.submit()
    with session_scope() as session:
        for step, completions in groups:
            group = {"prompt_id": f"p{step}", "answer": "7", "images": [], "completions": completions}
            samples.insert(session, job_id, step, group, 10**7)
    return job_id


def test_a_replay_lists_which_rewards_flip(client: Client) -> None:
    right, near = completion("7", passed=True, reward=1.0), completion("7.001", passed=False, reward=0.0)
    lucky = completion("the 7", passed=True, reward="NaN")
    job_id = trained((1, [right, near]), (2, [lucky, right, {"passed": False, "reward": 0.0}]), (3, [near]))
    found = client.replay(job_id, [{"type": "numeric"}])
    assert (found.completions, found.scored, found.stopped) == (6, 6, None)
    assert [(one.step, one.completion, one.passed_before, one.passed_after) for one in found.data] == [
        (1, 1, False, True),
        (2, 0, True, False),
        (3, 0, False, True),
    ]
    assert (found.data[0].reward_before, found.data[0].reward_after) == (0.0, 1.0)
    assert (found.data[1].reward_before, found.data[1].by_verifier) == (None, {"numeric": 0.0})
    assert client.sample(job_id, found.data[0].sample_id).prompt_id == found.data[0].prompt_id == "p1"
    counts = found.passed_before, found.passed_after, found.now_passed, found.now_failed, found.rewards_changed
    assert counts == (3, 4, 2, 1, 3)
    curve = [(one.step, one.scored, one.passed_before, one.passed_after) for one in found.by_step]
    assert curve == [(1, 2, 1, 2), (2, 3, 2, 1), (3, 1, 0, 1)]

    (only,) = client.replay(job_id, [{"type": "numeric"}], first_step=2, last_step=2).data
    assert only.step == 2
    cut = client.replay(job_id, [{"type": "numeric"}], limit=3)
    assert (cut.completions, cut.scored, cut.stopped) == (6, 3, "the limit is 3")
    assert [one.step for one in cut.data] == [1, 2]


def test_hostile_completions_cost_their_own_verdicts_only(client: Client) -> None:
    hostile = completion(HOSTILE, passed=True, reward=1.0)
    job_id = trained((1, [hostile, completion("\\sqrt{49}", passed=False, reward=0.0)]))
    found = client.replay(job_id, [{"type": "math", "time_limit_seconds": 1.0}])
    assert (found.scored, found.failures, found.stopped) == (2, 1, None)
    slow, fixed = found.data
    assert (slow.completion, slow.passed_after, slow.failure) == (0, False, "math: no verdict within 1 seconds")
    assert (fixed.completion, fixed.passed_after, fixed.failure) == (1, True, None)


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_a_replay_runs_functions_of_users_in_the_sandbox(client: Client) -> None:
    job_id = trained((1, [completion("7", passed=False, reward=0.0)]))
    source = "def grade(sample, item): return 0.75 * (item['answer'] in sample['output_text'])"
    found = client.replay(job_id, [{"type": "python", "source": source}])
    (row,) = found.data
    assert (row.by_verifier, row.passed_after, row.failure) == ({"python-function": 0.75}, True, None)


def test_a_replay_ends_in_time_and_leaves_no_process(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch is plain text, and there if the machine was fast enough; the second would take minutes."""
    plain = completion("7", passed=False, reward=0.0)
    slow = [completion(f"(x+y+z+w)^{{{500 + n}}}", passed=True, reward=1.0) for n in range(16)]
    job_id = trained((1, [plain] * 16), (2, slow))
    monkeypatch.setattr(replay, "LIMIT_SECONDS", 4)
    monkeypatch.setenv("MARKER", marker := uuid4().hex)
    found = client.replay(job_id, [{"type": "math"}])
    assert (found.completions, found.stopped) == (32, "scoring took more than 4 s")
    assert found.scored == found.now_passed
    assert found.scored in (0, 16)
    eventually(lambda: not processes_with(marker))


def test_a_refused_replay_gives_the_reason(http: httpx.Client, client: Client) -> None:
    job_id = trained((1, [completion("7", passed=True, reward=1.0)]))
    path = f"/v1/jobs/{job_id}/replay"
    for body, field in (
        ({}, "rewards"),
        ({"rewards": []}, "rewards"),
        ({"rewards": [{"type": "format"}]}, "rewards"),
        ({"rewards": [{"type": "math"}, {"type": "math"}]}, "rewards"),
        ({"rewards": [{"type": "math", "time_limit_seconds": 60}]}, "rewards"),
        ({"rewards": [{"type": "plugin", "name": "none"}]}, "rewards.0"),
        ({"rewards": [{"type": "math"}], "first_step": 3, "last_step": 2}, "last_step"),
        ({"rewards": [{"type": "math"}], "limit": 5001}, "limit"),
    ):
        assert named(http.post(path, json=body)) == [field]
    with pytest.raises(CalibrlError, match="has no stored completions in these steps"):
        client.replay(job_id, [{"type": "math"}], first_step=2)
    refused(http.post(f"/v1/jobs/{uuid4()}/replay", json={"rewards": [{"type": "math"}]}), 404)


def test_two_replays_at_most_run_at_once(http: httpx.Client) -> None:
    job_id = trained((1, [completion("7", passed=True, reward=1.0)]))
    with REPLAYING.one(), REPLAYING.one():
        answer = http.post(f"/v1/jobs/{job_id}/replay", json={"rewards": [{"type": "exact"}]})
        assert refused(answer, 503)["type"] == "urn:calibrl:busy"
    assert http.post(f"/v1/jobs/{job_id}/replay", json={"rewards": [{"type": "exact"}]}).status_code == 200


def test_a_replay_changes_nothing(http: httpx.Client) -> None:
    """A read-only key can ask for it, and the audit log has nothing of it."""
    job_id = trained((1, [completion("7", passed=False, reward=0.0)]))
    before = http.get(f"/v1/jobs/{job_id}/samples").json()
    key = http.post("/v1/keys", json={"name": "eyes", "scope": "read"}).json()["key"]
    headers, body = {"Authorization": f"Bearer {key}"}, {"rewards": [{"type": "exact"}]}
    answer = http.post(f"/v1/jobs/{job_id}/replay", json=body, headers=headers)
    assert (answer.status_code, answer.json()["now_passed"]) == (200, 1)
    assert http.get(f"/v1/jobs/{job_id}/samples").json() == before
    assert "replay" not in http.get("/v1/audit").text
    assert http.post(f"/v1/jobs/{job_id}/cancel", headers=headers).status_code == 403
