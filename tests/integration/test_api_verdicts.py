"""Verdicts of people over real HTTP: a planted verifier error is measured; verdicts are attributed, and can change."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from calibrl.client import CalibrlError, Client
from jobs.db import session_scope
from jobs.repository import samples
from tests.support import job_steps
from tests.support.api_users import ApiUsers
from tests.support.rest import refused

pytestmark = pytest.mark.integration
# Per group: what the verifiers say of its four completions, and which are right. Of 8 that passed 2 are wrong, of 8
# that failed 1 is right.
GROUPS = (
    ((True, True, True, True), (True, True, True, False)),
    ((True, True, True, False), (True, True, False, False)),
    ((True, False, False, False), (True, True, False, False)),
    ((False, False, False, False), (False, False, False, False)),
)


def planted() -> UUID:
    job_id = job_steps.submit()
    with session_scope() as session:
        for number, (passed, right) in enumerate(GROUPS):
            completions: list[dict[str, Any]] = [
                {"text": f"right: {truth}", "passed": one, "reward": float(one), "advantage": 0.5}
                for one, truth in zip(passed, right, strict=True)
            ]
            group = {"prompt_id": f"row-{number}", "prompt": "1 + 1?", "answer": "2", "completions": completions}
            assert samples.insert(session, job_id, number + 1, group, 10**9)
    return job_id


def test_a_planted_verifier_error_is_measured_on_random_completions(client: Client) -> None:
    job_id = planted()
    seen = []
    for _ in range(16):
        one = client.next_to_judge(job_id)
        seen.append((one.sample_id, one.completion))
        client.put_verdict(job_id, one.sample_id, one.completion, right=one.text == "right: True", picked="random")
    assert len({*seen}) == 16
    with pytest.raises(CalibrlError, match="no stored completion without a verdict"):
        client.next_to_judge(job_id)
    found = client.trust(job_id)
    assert (found.completions, found.accuracy, found.verdicts) == (16, 0.5, 16)
    assert found.false_passes and found.false_failures and found.corrected
    assert (found.false_passes.value, found.false_passes.count) == (2 / 8, 8)
    assert (found.false_failures.value, found.false_failures.count) == (1 / 8, 8)
    assert found.corrected.value == 7 / 16  # the share that is right
    assert found.corrected.low < 7 / 16 < found.corrected.high < 0.7
    assert {(one.prompt_id, one.completion, one.passed) for one in found.disagreements} == {
        ("row-0", 3, True),
        ("row-1", 2, True),
        ("row-2", 1, False),
    }


def test_both_verdicts_of_the_verifiers_are_judged_equally_often(client: Client) -> None:
    job_id = planted()
    for _ in range(6):
        one = client.next_to_judge(job_id)
        client.put_verdict(job_id, one.sample_id, one.completion, right=True, picked="random")
    assert sorted(one.passed for one in client.verdicts(job_id)) == [False] * 3 + [True] * 3


def test_chosen_completions_are_no_sample_for_rates(client: Client) -> None:
    job_id = planted()
    first = client.samples(job_id).data[0]
    given = client.put_verdict(job_id, first.id, 3, right=False)
    assert (given.user, given.right, given.passed, given.picked) == ("admin", False, True, "chosen")
    found = client.trust(job_id)
    assert (found.verdicts, found.false_passes, found.corrected) == (1, None, None)
    assert [one.completion for one in found.disagreements] == [3]


def test_verdicts_have_their_users_and_can_change(http: httpx.Client, client: Client) -> None:
    job_id = planted()
    sample = client.samples(job_id).data[0].id
    with ApiUsers(http) as users, Client(str(http.base_url), users.add("ann", {"default": "member"})) as other:
        other.put_verdict(job_id, sample, 0, right=True)
        client.put_verdict(job_id, sample, 0, right=True)
        client.put_verdict(job_id, sample, 0, right=False)
        assert {(one.user, one.right) for one in client.verdicts(job_id)} == {("ann", True), ("admin", False)}
        other.remove_verdict(job_id, sample, 0)
        assert [one.user for one in client.verdicts(job_id)] == ["admin"]
        with pytest.raises(CalibrlError, match="given no verdict"):
            other.remove_verdict(job_id, sample, 0)


def test_verdicts_are_listed_in_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = planted()
    first, second = (sample.id for sample in client.samples(job_id).data[:2])
    for sample in (first, second):
        for completion in range(3):
            client.put_verdict(job_id, sample, completion, right=False)
    newest = [(sample, completion) for sample in (second, first) for completion in (2, 1, 0)]
    monkeypatch.setattr("calibrl.client.verdicts.PAGE", 2)
    assert [(one.sample_id, one.completion) for one in client.verdicts(job_id)] == newest
    assert [(one.sample_id, one.completion) for one in client.verdicts(job_id, sample_id=first)] == newest[3:]
    every = client.trust(job_id).disagreements
    monkeypatch.setattr("jobs.insight.trust.MAX_DISAGREEMENTS", 1)
    assert client.trust(job_id).disagreements == every[:1]


def test_verdicts_on_what_is_not_there_are_refused(http: httpx.Client, client: Client) -> None:
    job_id = planted()
    sample = client.samples(job_id).data[0].id
    path = f"/v1/jobs/{job_id}/samples"
    beyond = http.put(f"{path}/{sample}/completions/4/verdict", json={"right": True})
    assert "has 4 completions" in refused(beyond, 404)["detail"]
    refused(http.put(f"{path}/{sample + 999}/completions/0/verdict", json={"right": True}), 404)
    refused(http.put(f"{path}/{sample}/completions/0/verdict", json={"right": "perhaps"}), 422)
    refused(http.put(f"{path}/{sample}/completions/0/verdict", json={"right": True, "picked": "x"}), 422)
    refused(http.get(f"/v1/jobs/{uuid4()}/trust"), 404)
