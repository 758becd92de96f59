"""`calibrl prompts` over real HTTP: lists of prompts, and the visits of one."""

import json
from typing import Any

from .conftest import JOB_ID, JOB_PATH, OTHER_ID, Service, calibrl, job

DIGEST = "c" * 16
LIFE: dict[str, Any] = {
    "prompt": DIGEST,
    "prompt_id": "row-c",
    "visits": 3,
    "solved": 2,
    "first_step": 1,
    "last_step": 21,
    "expert": True,
    "shares": [0.25, 1.0, 0.0],
    "entropies": [0.1, None, 0.3],
}
VISIT = {"step": 1, "passed": 1, "size": 4, "entropy": 0.25, "gap": None, "rareness": 0.5}
RUN = {"job_id": str(OTHER_ID), "name": "b", "visits": 3, "solved": 2, "first_share": 0.0, "last_share": 0.75}


def test_prompts_of_a_list(service: Service) -> None:
    service.on("GET", JOB_PATH, job())
    counts = {"all": 6, "only_expert": 1, "lost": 1, "never_moved": 3}
    service.on("GET", f"{JOB_PATH}/prompts", {"data": [LIFE], "has_more": False, "counts": counts})
    lines = calibrl("prompts", str(JOB_ID), "--list", "lost").stdout.splitlines()
    assert service.requests[-1].query == {"list": "lost", "limit": "100"}
    assert lines[0] == "6 prompts: 1 only the expert solves, 1 solved, then lost, 3 never moved"
    assert lines[2].split()[:7] == [DIGEST, "row-c", "3", "2", "1-21", "25%", "0%"]
    assert json.loads(calibrl("prompts", str(JOB_ID), "--json").stdout)["counts"]["lost"] == 1
    assert calibrl("prompts", str(JOB_ID), "--list", "odd").exit_code == 2


def test_visits_of_a_prompt_and_its_other_runs(service: Service) -> None:
    service.on("GET", JOB_PATH, job())
    life = {"prompt": DIGEST, "prompt_id": "row-c", "expert": True, "visits": [VISIT], "runs": [RUN]}
    service.on("GET", f"{JOB_PATH}/prompts/{DIGEST}", life)
    lines = calibrl("prompts", str(JOB_ID), DIGEST).stdout.splitlines()
    assert lines[0] == "row-c (with expert)"
    assert lines[2].split() == ["1", "1", "of", "4", "0.25", "–", "0.5"]
    assert lines[-1].split() == [str(OTHER_ID)[:8], "b", "3", "2", "0%", "75%"]
