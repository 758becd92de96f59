"""`calibrl bisect` over real HTTP: a result is shown, and a training is bisected."""

import json
from uuid import UUID

from tests.support.bisections import bisection_result

from .conftest import JOB_ID, JOB_PATH, Service, calibrl, fault, job, problem

OTHER = UUID("99999999-2222-3333-4444-555555555555")
ENDED = f'event: end\ndata: {{"job_id": "{OTHER}", "status": "succeeded"}}\nid: 9\n\n'.encode()
SPEC = {"kept": [{"from_job": str(JOB_ID), "checkpoint": 50}]}


def test_the_bad_update_and_forks_are_shown(service: Service) -> None:
    service.on("GET", JOB_PATH, job(kind="bisect", status="succeeded", spec=SPEC))
    service.on("GET", f"{JOB_PATH}/bisection", bisection_result())
    shown = calibrl("bisect", JOB_ID)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "reward_not_accuracy fired at step 90. Probe: accuracy of 8 completions of each of 32" in shown.stdout
    assert "First bad update: step 60 (gradient norm 3, learning rate 0.001)" in shown.stdout
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert ["50", "0.750", "reference", "checkpoint"] in rows
    assert ["60", "0.375", "-0.375", "-0.475", "to", "-0.275", "worse", "step", "taken", "again"] in rows
    assert ["sums/1", "2.5", "1", "of", "4", "0.250"] in rows
    fork = ["calibrl", "fork", str(JOB_ID), "--checkpoint", "50", "--set"]
    assert [*fork, "algorithm.kl_coef=0.01"] in rows
    assert [*fork, "prompts_per_step=16"] in rows
    assert json.loads(calibrl("bisect", JOB_ID, "--json").stdout)["last_good"] == 50


def test_a_search_without_a_finding_says_so(service: Service) -> None:
    service.on("GET", JOB_PATH, job(kind="bisect", status="succeeded", spec=SPEC))
    for changes, said in (
        ({"first_bad": None, "update": None}, "No checkpoint is worse than the reference"),
        ({"update": None}, "between step 50 and step 100. The steps taken again did not repeat it"),
    ):
        service.on("GET", f"{JOB_PATH}/bisection", bisection_result(**changes))
        assert said in " ".join(calibrl("bisect", JOB_ID).stdout.split())


def test_a_training_is_bisected_and_waited_for(service: Service) -> None:
    service.on("GET", JOB_PATH, job(kind="train", status="succeeded"))
    other = f"/v1/jobs/{OTHER}"
    service.on("POST", f"{JOB_PATH}/bisection", (201, job(kind="bisect", status="queued", id=OTHER, spec=SPEC)))
    service.on("GET", other, job(kind="bisect", status="succeeded", id=OTHER, spec=SPEC))
    service.on("GET", f"{other}/stream", ENDED)
    service.on("GET", f"{other}/bisection", bisection_result())
    shown = calibrl("bisect", JOB_ID, "--rule", "overfitting")
    assert (shown.exit_code, f"job {OTHER}" in shown.stderr) == (0, True)
    (body,) = [one.body for one in service.requests if one.method == "POST"]
    assert body == {"rule": "overfitting", "name": None}


def test_a_refusal_is_explained(service: Service) -> None:
    service.on("GET", JOB_PATH, job(kind="train", status="succeeded"))
    service.on("POST", f"{JOB_PATH}/bisection", problem(409, "No rule has fired."))
    assert "No rule has fired" in fault(calibrl("bisect", JOB_ID), 1)
