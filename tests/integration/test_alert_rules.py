"""Alert rules of projects: on shipped metrics, on progress, over REST. The sequences of values are judged by hand."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from calibrl.schemas import BisectionRequest, JobStatus, NewAlertRule
from calibrl_core.report import EventFile
from jobs.alerts import progress_rules
from jobs.db import session_scope
from jobs.errors import Conflict
from jobs.lifecycle.bisections import bisection_spec
from jobs.repository import alert_rules, events, jobs, webhooks
from tests.support import job_steps
from tests.support.bisections import fired
from tests.support.rest import serving
from worker.shipper import Shipper

pytestmark = pytest.mark.integration
LOW: dict[str, Any] = {"type": "below", "metric": "m", "limit": 0.5, "steps": 2}
RULES = "/v1/alert-rules"


class Run:
    """A running job whose trainer writes metrics `m`, and the alerts and messages that follow."""

    def __init__(self, folder: Path, **spec: Any) -> None:
        self.id = job_steps.submit(**spec)
        self.claim = job_steps.claim()
        self.folder = folder
        self.shipper = Shipper(self.claim, folder, "w")

    def ship(self, *lines: tuple[int, Any] | int) -> None:
        """Ship values by step; a number alone is a start at that step."""
        report = EventFile(self.folder)
        for line in lines:
            if isinstance(line, int):
                report.emit("start", step=line, steps_total=9, versions={}, parameters=1)
            else:
                report.emit("metrics", step=line[0], values={"m": line[1], "other": 1})
        while self.shipper.ship():
            pass

    def alerts(self) -> list[tuple[str, str, int]]:
        with session_scope() as session:
            return [(alert.rule, alert.state, alert.step) for alert in events.alerts(session, self.id)]

    def firing(self) -> list[str]:
        with session_scope() as session:
            return events.firing(session, [self.id])[self.id]

    def sent(self) -> list[tuple[str, int]]:
        """State and step of the alerts in the messages of a webhook."""
        rows = fetched("SELECT data->'alert' FROM deliveries WHERE type = 'job.health' ORDER BY created_at")
        return [(alert["state"], alert["step"]) for alert in rows]


def fetched(query: str) -> list[Any]:
    with session_scope() as session:
        return list(session.scalars(text(query)))


def rule(name: str = "low", condition: dict[str, Any] = LOW, **fields: Any) -> UUID:
    new = NewAlertRule.model_validate({"name": name, "condition": condition, **fields})
    with session_scope() as session:
        return alert_rules.add(session, new.model_dump(), user="ada").id


@pytest.fixture
def run(database: str, tmp_path: Path) -> Run:
    with session_scope() as session:
        webhooks.add(session, "default", url="https://a.example", events=["job.health"], secret="s", user="u")
    return Run(tmp_path)


def test_a_rule_fires_and_clears_once(run: Run) -> None:
    rule()
    run.ship((1, 0.4), (2, 0.6), (3, 0.4))
    assert run.alerts() == []
    run.ship((4, 0.3))  # 3 and 4
    assert (run.alerts(), run.firing()) == ([("low", "fired", 4)], ["low"])
    run.ship((5, 0.2), (6, 0.7), (7, 0.4), (8, 0.7), (9, 0.8))
    assert (run.alerts(), run.firing()) == ([("low", "fired", 4), ("low", "cleared", 9)], [])
    assert run.sent() == [("fired", 4), ("cleared", 9)]
    with session_scope() as session:
        messages = [event.message for event in events.page(session, run.id, after=0, limit=99) if event.alert]
    assert messages[0] == "low fired at step 4: m was below 0.5 for 2 values in a row (last value 0.3)."


def test_values_before_a_rule_count_but_fire_nothing_by_themselves(run: Run) -> None:
    run.ship((1, 0.4), (2, 0.4))
    rule()
    run.ship((3, 0.4))
    assert run.alerts() == [("low", "fired", 3)]


def test_steps_that_were_taken_back_do_not_count(run: Run) -> None:
    rule()
    run.ship(0, (1, 0.9), (2, 0.9), (3, 0.4))
    run.ship(2, (3, 0.9), (4, 0.4))  # without the first step 3: only one value is below
    assert run.alerts() == []
    run.ship((5, 0.4))
    assert run.alerts() == [("low", "fired", 5)]


def test_a_repeated_alert_is_sent_once(run: Run) -> None:
    rule()
    run.ship(0, (1, 0.9), (2, 0.4), (3, 0.4))
    run.ship(2)
    assert run.firing() == []  # at step 2 the rule had not fired
    run.ship((3, 0.4))
    assert run.firing() == ["low"]
    assert run.alerts() == [("low", "fired", 3), ("low", "cleared", 2), ("low", "fired", 3)]
    assert run.sent() == [("fired", 3)]


def test_a_rewind_restores_an_alert_that_had_ended_later(run: Run) -> None:
    rule()
    run.ship(0, (1, 0.4), (2, 0.4), (3, 0.9), (4, 0.9))
    assert run.firing() == []
    run.ship(2, (3, 0.4))  # now it stays below
    assert run.firing() == ["low"]
    assert run.alerts()[2:] == [("low", "fired", 2)]
    assert run.sent() == [("fired", 2), ("cleared", 4)]


def test_a_rule_that_hovers_at_its_limit_sends_few_messages(run: Run) -> None:
    rule(condition={**LOW, "steps": 1})
    run.ship(*((step, 0.4 if step % 2 else 0.6) for step in range(1, 13)))
    assert (len(run.alerts()), len(run.sent())) == (12, 10)
    job_steps.run("UPDATE events SET ts = now() - interval '61 minutes'")
    run.ship((13, 0.4))
    assert run.sent()[10:] == [("fired", 13)]


def test_a_new_attempt_goes_on_with_the_counts(run: Run) -> None:
    rule()
    run.ship(0, (1, 0.9), (2, 0.4))
    run.shipper = Shipper(run.claim, run.folder, "w")  # a process that has seen no value
    run.ship(2, (3, 0.4))
    assert run.alerts() == [("low", "fired", 3)]


def test_a_failed_transaction_counts_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rule()
    run.ship((1, 0.9))
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "set_shipped", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run.ship((2, 0.4))
    run.shipper.ship()
    assert run.alerts() == []  # the value of step 2 was seen twice, and is one
    run.ship((3, 0.4))
    assert run.alerts() == [("low", "fired", 3)]


def test_a_rule_of_other_jobs_or_projects_does_not_fire(run: Run) -> None:
    job_steps.project("elsewhere")
    rule(labels={"team": "b"})
    rule("named", job_names="b*")
    rule("elsewhere", project="elsewhere")
    rule("here", job_names="a *")
    run.ship((1, 0.4), (2, 0.4))
    assert run.alerts() == [("here", "fired", 2)]


def test_a_rule_on_values_that_are_not_finite(run: Run) -> None:
    rule(condition={"type": "not_finite", "metric": "m"})
    run.ship((1, 1.0), (2, float("nan")), (3, float("inf")), (4, 1.0))
    assert run.alerts() == [("low", "fired", 2), ("low", "cleared", 4)]


def test_the_best_value_is_that_of_the_whole_run(run: Run) -> None:
    rule(condition={"type": "worse_than_best", "metric": "m", "by": 0.1})
    run.ship(0, (1, 0.5), (2, 0.9), (3, 0.85))
    run.shipper = Shipper(run.claim, run.folder, "w")
    run.ship(1, (2, 0.6), (3, 0.55), (4, 0.45))  # the 0.9 was taken back: 0.15 below 0.6
    assert run.alerts() == [("low", "fired", 4)]


def idle(run: Run, minutes: float) -> None:
    """Move the last step and the start of the attempt back."""
    ago = f"now() - interval '{minutes} minutes'"
    job_steps.run(f"UPDATE jobs SET stepped_at = {ago} WHERE stepped_at IS NOT NULL")
    job_steps.run(f"UPDATE attempts SET started_at = {ago}")


def check() -> None:
    with session_scope() as session:
        progress_rules.check(session)


def test_a_job_without_progress_raises_one_alert(run: Run) -> None:
    rule("stuck", {"type": "no_progress", "minutes": 30})
    run.ship((1, 1))
    idle(run, 29)
    check()
    assert run.alerts() == []
    idle(run, 31)
    check()
    check()
    assert (run.alerts(), run.sent()) == ([("stuck", "fired", 1)], [("fired", 1)])
    run.ship((2, 1))
    check()
    assert run.alerts() == [("stuck", "fired", 1), ("stuck", "cleared", 2)]
    idle(run, 31)
    check()
    with session_scope() as session:
        jobs.get(session, run.id).status = JobStatus.PAUSED
    check()
    assert run.alerts()[2:] == [("stuck", "fired", 2), ("stuck", "cleared", 2)]


def test_rules_over_rest(run: Run) -> None:
    with serving() as client:
        added = client.post(RULES, json={"name": "low", "condition": LOW, "labels": {}})
        assert added.status_code == 201 and added.headers["Location"] == f"{RULES}/{added.json()['id']}"
        path, tag = added.headers["Location"], added.headers["ETag"]
        assert client.post(RULES, json={"name": "low", "condition": LOW}).status_code == 409
        assert client.get(RULES, params={"project": "default"}).json()["data"] == [added.json()]
        run.ship((1, 0.4), (2, 0.4))
        changed = client.put(path, json={"condition": {**LOW, "limit": 0.3}}, headers={"If-Match": tag})
        assert changed.json()["condition"]["limit"] == 0.3 and changed.headers["ETag"] != tag
        assert client.put(path, json={"condition": LOW}, headers={"If-Match": tag}).status_code == 412
        assert run.firing() == []  # the changed rule has not fired
        run.ship((3, 0.4), (4, 0.2), (5, 0.2))
        assert run.firing() == ["low"]
        assert client.delete(path).status_code == 204 and client.get(path).status_code == 404
        assert run.firing() == []
        run.ship((6, 0.2), (7, 0.2))
    assert [(state, step) for _, state, step in run.alerts()] == [
        *(("fired", 2), ("cleared", 2)),
        *(("fired", 5), ("cleared", 5)),
    ]
    actions = set(fetched("SELECT action FROM audit"))
    assert {f"POST {RULES}", f"PUT {RULES}/{{rule_id}}", f"DELETE {RULES}/{{rule_id}}"} <= actions


def test_a_rule_with_other_jobs_fires_again(run: Run) -> None:
    with serving() as client:
        path = client.post(RULES, json={"name": "low", "condition": LOW}).headers["Location"]
        run.ship((1, 0.4), (2, 0.4))
        client.put(path, json={"condition": LOW})  # no difference
        assert run.alerts() == [("low", "fired", 2)]
        client.put(path, json={"condition": LOW, "job_names": "a *"})
        assert run.firing() == []
        run.ship((3, 0.4), (4, 0.9), (5, 0.9))
        steps = [("fired", 2), ("cleared", 2), ("fired", 3), ("cleared", 5)]
        assert [alert[1:] for alert in run.alerts()] == steps


def test_an_alert_ends_in_a_job_that_its_rule_no_longer_concerns(run: Run) -> None:
    rule(job_names="a *")
    rule("always")
    run.ship((1, 0.4), (2, 0.4))
    with session_scope() as session:
        jobs.get(session, run.id).name = "other"
    run.shipper = Shipper(run.claim, run.folder, "w")
    run.ship((3, 0.4))
    assert run.firing() == ["always"]
    assert run.alerts()[2:] == [("low", "cleared", 2)]


def test_a_bisection_explains_the_step_before_a_rewind(run: Run) -> None:
    for step in (40, 45):
        job_steps.checkpoint(run.id, step)
    with session_scope() as session:
        for alert in (fired("entropy_collapse", 50), fired("entropy_collapse", 90)):
            state = "fired" if alert.step == 50 else "cleared"
            events.add_alert(session, run.id, alert.model_copy(update={"state": state}), actor="w")
        events.take_back_alerts(session, run.id, 80, actor="w")
    assert run.firing() == ["entropy_collapse"]
    with session_scope() as session:
        assert bisection_spec(session, run.id, BisectionRequest())["fired_step"] == 50


def test_a_bisection_explains_alerts_of_health_rules_only(run: Run) -> None:
    rule()
    run.ship((1, 0.4), (2, 0.4))
    with session_scope() as session, pytest.raises(Conflict, match="A health rule has not fired"):
        bisection_spec(session, run.id, BisectionRequest())


def test_a_project_has_a_limited_number_of_rules(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_rules, "MAX_RULES", 1)
    rule()
    with serving() as client:
        refused = client.post(RULES, json={"name": "two", "condition": LOW})
    assert refused.status_code == 409 and "Remove one first" in refused.text
