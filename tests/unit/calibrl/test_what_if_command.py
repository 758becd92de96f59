"""`calibrl what-if` over real HTTP: a result is shown, and a training is compared."""

import json
from uuid import UUID

from tests.support.what_ifs import what_if_result

from .conftest import JOB_ID, JOB_PATH, Service, calibrl, fault, job, problem

OTHER = UUID("99999999-2222-3333-4444-555555555555")
ENDED = f'event: end\ndata: {{"job_id": "{OTHER}", "status": "succeeded"}}\nid: 9\n\n'.encode()


def test_the_updates_and_quadrants_are_shown(service: Service) -> None:
    service.on("GET", JOB_PATH, job(kind="what_if", status="succeeded"))
    service.on("GET", f"{JOB_PATH}/what-if", what_if_result())
    shown = calibrl("what-if", JOB_ID)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "step 51, update 0: 4 rollouts, 40 tokens, learning rate 0.0001" in shown.stdout
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert ["own", "2", "+1.0000", "0.5", "+1.0000", "+1.000", "+2.000", "-3.000", "–"] in rows
    assert any(row[:2] == ["slope", "0"] and "+0.7500" in row and "negative_slope=0" in row for row in rows)
    assert ["own", "+4.000", "-5.000"] in rows
    assert json.loads(calibrl("what-if", JOB_ID, "--json").stdout)["step"] == 51


def test_a_training_is_compared_and_waited_for(service: Service) -> None:
    service.on("GET", JOB_PATH, job(kind="train", status="succeeded"))
    other = f"/v1/jobs/{OTHER}"
    service.on("POST", f"{JOB_PATH}/what-if", (201, job(kind="what_if", status="queued", id=OTHER)))
    service.on("GET", other, job(kind="what_if", status="succeeded", id=OTHER))
    service.on("GET", f"{other}/stream", ENDED)
    service.on("GET", f"{other}/what-if", what_if_result())
    shown = calibrl("what-if", JOB_ID, "--step", "50", "--variant", "negative_slope=0", "--variant", "type=grpo")
    assert (shown.exit_code, f"job {OTHER}" in shown.stderr) == (0, True)
    assert "slope 0" in shown.stdout
    (body,) = [one.body for one in service.requests if one.method == "POST"]
    variants = {"negative_slope=0": {"negative_slope": 0}, "type=grpo": {"type": "grpo"}}
    assert body == {"checkpoint": 50, "update": 0, "variants": variants, "name": None}


def test_faults_are_explained(service: Service) -> None:
    service.on("GET", JOB_PATH, job(kind="train", status="succeeded"))
    service.on("POST", f"{JOB_PATH}/what-if", problem(422, "There is nothing to compare."))
    assert "nothing to compare" in fault(calibrl("what-if", JOB_ID), 2)
    assert "write it as key=value" in fault(calibrl("what-if", JOB_ID, "--variant", "grpo"), 2)
