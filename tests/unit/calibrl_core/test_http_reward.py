"""Rewards of a service over HTTP: what it is asked, its answers, and the hosts that are allowed."""

import base64
import hashlib
import hmac
import stat
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from pydantic import SecretStr

from calibrl_core.data.schema import Example, completed
from calibrl_core.report import EventFile
from calibrl_core.train import train
from calibrl_core.verifiers import http_service, remote
from calibrl_core.verifiers.http_service import HttpReward
from calibrl_core.verifiers.reward_input import image_name
from calibrl_core.verifiers.scorer import Score, Scorer
from calibrl_core.verifiers.services import Endpoint, RewardServiceError, Services
from tests.support.reward_service import Answer, Asked, Service, serving
from tests.support.training import config, events

KEY = b"k" * 32
SECRET = SecretStr("whsec_" + base64.b64encode(KEY).decode())
EXAMPLE = Example("1", "Which?", "B", images=(b"png",), item={"level": 3})


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.0)


def lengths(asked: Asked) -> Answer:
    """Judge a completion by its length, in tenths."""
    return 200, {"scores": [len(sample["completion"]) / 10 for sample in asked.body["samples"]]}


def scores(service: Service, texts: Sequence[str], **settings: Any) -> list[Score]:
    services = Services(hosts=(service.host,), secret=SECRET)
    with Scorer([HttpReward(url=f"{service.url}/grade", **settings)], services=services) as scorer:
        return scorer.grade(completed([EXAMPLE], texts))


def test_a_service_gets_signed_batches_and_its_scores_count() -> None:
    with serving(lengths) as service:
        found = scores(service, ["a", "bb", "ccc", "dddd", "a"], batch_size=3, name="length")
    assert [score.by_verifier for score in found] == [{"length": n / 10} for n in (1, 2, 3, 4, 1)]
    assert [score.cached for score in found] == [()] * 4 + [("length",)]
    assert sorted(len(asked.body["samples"]) for asked in service.asked) == [1, 3]
    (asked,) = [asked for asked in service.asked if len(asked.body["samples"]) == 3]
    assert asked.body["samples"][1] == {
        "completion": "bb",
        "question": "Which?",
        "truth": "B",
        "item": {"level": 3},
        "images": [image_name(b"png")],
        "group": [],
    }
    assert asked.body["images"] == {image_name(b"png"): base64.b64encode(b"png").decode()}
    signed = f"{asked.headers['webhook-id']}.{asked.headers['webhook-timestamp']}.".encode() + asked.content
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert (asked.path, asked.headers["webhook-signature"]) == ("/grade", f"v1,{expected}")


def test_a_service_that_asks_for_it_sees_the_group() -> None:
    with serving(lengths) as service:
        scores(service, ["a", "bb"], needs_group=True)
    assert [sample["group"] for sample in service.asked[0].body["samples"]] == [["a", "bb"]] * 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_service_is_asked_again(status: int) -> None:
    def busy_at_first(asked: Asked) -> Answer:
        return lengths(asked) if len(service.asked) == 3 else (status, {}, {"Retry-After": "0"})

    with serving(busy_at_first) as service:
        (found,) = scores(service, ["abc"])
    assert (found.by_verifier, found.failure) == ({"http": 0.3}, None)
    assert len({asked.headers["webhook-id"] for asked in service.asked}) == 1  # a repeated message keeps its id


@pytest.mark.parametrize(
    ("answer", "tries", "why"),
    [
        ((503, {}), 3, "http: status 503, in 3 tries"),
        ((400, {"error": "no"}), 1, 'http: status 400: {"error": "no"}'),
        ((302, {}, {"Location": "http://127.0.0.1:1/"}), 1, "http: status 302: {}"),
        ((200, b"<html>"), 1, "http: the answer is not JSON"),
        ((200, b"[" * 100_000), 1, "http: the answer is not JSON"),
        ((200, {"scores": [1, 1]}), 1, 'http: the answer must be {"scores": [...]} with 1 numbers'),
        ((200, [1]), 1, "http: the answer must be"),
        ((200, {"scores": [1.5]}), 1, "http: scores.0 is 1.5; it must be a number from 0 to 1, or null"),
        ((200, {"scores": [True]}), 1, "http: scores.0 is true"),
        ((200, b'{"scores": [NaN]}'), 1, "http: scores.0 is NaN"),
        ((200, {"scores": ["1"]}), 1, 'http: scores.0 is "1"'),
        ((200, {"scores": [None]}), 1, "http: the service gave no score"),
        ((200, b" " * (remote.MOST_ANSWER + 1)), 1, "http: the answer has more than 4194304 bytes"),
    ],
)
def test_an_unusable_answer_is_a_missing_verdict(answer: Answer, tries: int, why: str) -> None:
    with serving(lambda asked: answer) as service:
        (found,) = scores(service, ["abc"], retries=2)
    assert (found.failure or "").startswith(why)
    assert (found.failed, len(service.asked)) == (("http",), tries)
    assert SECRET.get_secret_value() not in str(found)


def test_a_service_that_hangs_is_given_up() -> None:
    ended = Event()

    def hanging(asked: Asked) -> Answer:
        ended.wait()
        return lengths(asked)

    with serving(hanging) as service:
        (found,) = scores(service, ["abc"], time_limit_seconds=0.2, retries=1)
        ended.set()
    assert found.failure == "http: no answer within 0.2 seconds, in 2 tries"


def test_a_service_that_is_down_costs_three_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_service, "AT_ONCE", 1)
    with serving(lambda asked: (400, {})) as service:
        found = scores(service, [f"{n}" for n in range(10)], batch_size=1)
    assert len(service.asked) == 3
    assert [score.failure for score in found[2:4]] == [
        "http: status 400: {}",
        "http: not asked: 3 requests in a row had failed (status 400: {})",
    ]


def test_the_address_that_was_checked_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for = []

    def looked_up(*host: Any) -> list[str]:
        asked_for.append(host)
        return ["127.0.0.1"]

    monkeypatch.setattr(http_service, "look_up", looked_up)
    with serving(lengths) as service:
        port = int(service.url.rpartition(":")[2])
        services = Services(hosts=("rewards.test",), secret=SECRET)
        with Scorer([HttpReward(url=f"http://rewards.test:{port}/", batch_size=1)], services=services) as scorer:
            found = scorer.score_all(["a", "bb"], ["", ""])
    assert [score.reward for score in found] == [0.1, 0.2]
    assert asked_for == [("rewards.test", port, http_service.LOOKUP_SECONDS)]
    assert [asked.headers["host"] for asked in service.asked] == [f"rewards.test:{port}"] * 2


@pytest.mark.parametrize("address", ["10.0.0.7", "127.0.0.1", "169.254.169.254", "fd00::1"])
def test_a_pattern_allows_no_private_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(http_service, "look_up", lambda *host: ["8.8.8.8", address])
    services = Services(hosts=("*.example.org",), secret=SECRET)
    with Scorer([HttpReward(url="https://a.example.org/")], services=services) as scorer:
        (found,) = scorer.score_all(["a"], [""])
    assert "a.example.org has an address that is not public" in (found.failure or "")


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("http://10.0.0.7:8080/x", True),
        ("https://rewards.example.org/x", True),
        ("https://Rewards.Example.org:444/x", True),
        ("https://a.example.net/x", False),
    ],
)
def test_hosts_that_are_allowed(url: str, private: bool) -> None:
    services = Services(hosts=("10.0.0.7:8080", "rewards.example.org", "*.example.net"))
    assert services.is_private(url) is private


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://10.0.0.7/x", "the host 10.0.0.7 is not allowed here: an administrator lists it in reward_hosts"),
        ("http://10.0.0.7:8081/x", "the host 10.0.0.7 is not allowed"),
        ("https://example.net/x", "the host example.net is not allowed"),
        ("https://a.example.net.evil.com/x", "is not allowed"),
        ("http://a.example.net/x", "must begin with https"),
        ("https://rewards.example.org@evil.com/x", "without a user name"),
        ("ftp://rewards.example.org/x", "must be http"),
        ("https:///x", "must be http"),
    ],
)
def test_hosts_that_are_refused(url: str, why: str) -> None:
    services = Services(hosts=("10.0.0.7:8080", "rewards.example.org", "*.example.net"))
    with pytest.raises(RewardServiceError, match=why):
        services.is_private(url)


def test_a_run_without_the_service_does_not_begin() -> None:
    with pytest.raises(RewardServiceError, match=r"the host rewards\.test is not allowed here"):
        Scorer([HttpReward(url="https://rewards.test/")])
    with pytest.raises(RewardServiceError, match="there is no secret to sign with"):
        Scorer([HttpReward(url="https://rewards.test/")], services=Services(hosts=("rewards.test",)))


def test_a_run_learns_from_a_service_and_reports_it(tmp_path: Path) -> None:
    """Two steps of two groups of two, of which the service cannot judge the first sample of the second step."""

    def answer(asked: Asked) -> Answer:
        count = len(asked.body["samples"])
        first = None if len(service.asked) == 2 else 0.0
        return 200, {"scores": [first, *(place % 2 for place in range(1, count))]}

    with serving(answer) as service:
        report = EventFile(tmp_path)
        settings = config(
            rewards=[{"type": "http", "url": service.url}], steps=2, algorithm={"type": "grpo", "mini_batches": 1}
        )
        services = Services(hosts=(service.host,), secret=SECRET)
        train(settings, report, lambda: False, services=services)
        report.close()
    first, second = [event["values"] for event in events(tmp_path) if event["type"] == "metrics"]
    assert first["verdict/seconds/http"] > 0
    assert (first["verdict/failures/http"], second["verdict/dropped_groups"]) == (0.0, 1.0)
    images = service.asked[0].body["images"]
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images.values())
    assert len(images) == 2  # one per prompt


def test_services_are_kept_in_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    file = tmp_path / "services.json"
    judge = Endpoint(url="http://judge:8000/v1", key=SecretStr("sk-1"))
    services = Services(hosts=("a",), secret=SECRET, endpoints={"judge": judge})
    services.write(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Services.read(file) == services
    assert "sk-1" not in repr(services)
    assert SECRET.get_secret_value() not in repr(services)
    assert Services.read(None) == Services()
    with pytest.raises(RewardServiceError, match=r"none\.json cannot be read as reward services"):
        Services.read(tmp_path / "none.json")
