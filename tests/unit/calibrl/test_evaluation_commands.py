"""The commands about evaluations over real HTTP: what they send and print, as tables and as JSON."""

import json
from typing import Any

from .conftest import JOB_ID, OTHER_ID, Service, calibrl, fault, job, page, problem

SPEC = {"kind": "evaluate", "models": [{"from_job": str(OTHER_ID), "checkpoint": "best"}, {"path": "/models/big"}]}
EVALUATION_PATH = f"/v1/jobs/{JOB_ID}/evaluation"
REPLAY_PATH = f"/v1/jobs/{JOB_ID}/replay"


def measured(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def result(index: int, accuracy: float) -> dict[str, Any]:
    return {
        "model": "/data/runs/x",
        "model_index": index,
        "chosen": SPEC["models"][index],
        "split": "test",
        "prompts": 200,
        "samples": 8,
        "metrics": {"accuracy": measured(accuracy), "verifier_failures": {"value": 0.0}},
        "sources": {"odd": {"prompts": 90, "metrics": {"accuracy": measured(0.25)}}} if index == 0 else {},
    }


def pair(difference: float, *, distinguishable: bool) -> dict[str, Any]:
    interval = {"low": difference - 0.02, "high": difference + 0.02}
    return {"first": 0, "second": 1, "difference": difference, "distinguishable": distinguishable} | interval


def comparison(split: str, difference: float, *, distinguishable: bool, differ: list[str]) -> dict[str, Any]:
    models = [
        {"job_id": str(id), "job": name, "model_index": index, "model": "m", "chosen": chosen, "accuracy": accuracy}
        for id, name, index, chosen, accuracy in (
            (JOB_ID, "before", 0, {"builtin": "tiny-vlm"}, 0.5),
            (OTHER_ID, "after", 1, SPEC["models"][1], 0.6),
        )
    ]
    pairs = [pair(difference, distinguishable=distinguishable)]
    return {"split": split, "prompts": 200, "seed": 0, "models": models, "pairs": pairs, "settings_differ": differ}


def replayed(**changes: Any) -> dict[str, Any]:
    counts: dict[str, Any] = {"completions": 40, "scored": 40, "stopped": None, "passed_before": 10, "passed_after": 11}
    counts |= {"now_passed": 1, "now_failed": 0, "rewards_changed": 3, "failures": 1, "versions": {}}
    steps = [(10, 20, 5, 5), (50, 20, 5, 6)]
    names = ("step", "scored", "passed_before", "passed_after")
    counts["by_step"] = [dict(zip(names, one, strict=True)) for one in steps]
    flip = {"sample_id": 7, "step": 50, "prompt_id": "digits/train/3", "completion": 2, "reward_before": 0.1}
    flip |= {"reward_after": 1.0, "passed_before": False, "passed_after": True, "by_verifier": {"numeric": 1.0}}
    slow = flip | {"sample_id": 9, "passed_after": False, "reward_before": None, "failure": "math: no verdict\x1b[2J"}
    return {"job_id": str(JOB_ID), "data": [flip | {"failure": None}, slow], **counts, **changes}


def test_an_evaluation_is_shown_with_intervals_sources_and_verdicts(service: Service) -> None:
    service.on("GET", f"/v1/jobs/{JOB_ID}", job(kind="evaluate"))
    found = [pair(0.1, distinguishable=True) | {"split": "test"}]
    named = result(0, 0.5) | {"chosen_name": "warm-up"}
    unnamed = result(0, 0.5) | {"model": "/data/runs/x/step-00000040", "model_index": 2}
    answer = {"job_id": str(JOB_ID), "results": [named, result(1, 0.6), unnamed], "comparisons": found}
    service.on("GET", EVALUATION_PATH, answer)
    shown = calibrl("evals", JOB_ID)
    assert (shown.exit_code, shown.stderr) == (0, "")
    for part in (
        "50.0% (45.0% to 55.0%)",
        "warm-up (best)",
        "11111111 (step 40)",
        "models/big",
        "odd",
        "25.0%",
        "#1 is better",
    ):
        assert part in shown.stdout
    assert "PASS@K" not in shown.stdout
    assert json.loads(calibrl("evals", JOB_ID, "--json").stdout)["results"][1]["metrics"]["accuracy"]["value"] == 0.6


def test_models_are_compared_in_words(service: Service) -> None:
    for id in (JOB_ID, OTHER_ID):
        service.on("GET", f"/v1/jobs/{id}", job(id, kind="evaluate"))
    first = comparison("test", 0.1, distinguishable=True, differ=["rewards"])
    second = comparison("test-noise", -0.01, distinguishable=False, differ=[])
    service.on("GET", "/v1/evaluations/compare", page(first, second))
    shown = calibrl("compare", JOB_ID, f"{OTHER_ID}:1", "--seed", "3")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert service.requests[-1].query == {"jobs": f"{JOB_ID},{OTHER_ID}:1", "seed": "3"}
    for part in ("test: 200 prompts; the evaluations differ in rewards, too", "+10.0 points (+8.0 to +12.0)", "60.0%"):
        assert part in shown.stdout
    assert [line.split("  ")[-1].strip() for line in shown.stdout.splitlines() if " against " in line] == [
        "#1 is better",
        "not distinguishable",
    ]
    assert len(json.loads(calibrl("compare", JOB_ID, OTHER_ID, "--split", "test", "--json").stdout)) == 2
    assert service.requests[-1].query["split"] == "test"
    assert "write the index of a model" in fault(calibrl("compare", f"{JOB_ID}:x"), 2)
    service.on("GET", "/v1/evaluations/compare", problem(409, "Conflict", detail="3 pair."))
    assert fault(calibrl("compare", JOB_ID, OTHER_ID), 1) == "calibrl: Conflict: 3 pair.\n"


def test_a_replay_lists_the_changed_verdicts(service: Service) -> None:
    service.on("GET", f"/v1/jobs/{JOB_ID}", job())
    service.on("POST", REPLAY_PATH, replayed())
    rewards = ("--reward", "type=numeric,relative_tolerance=1e-2", "--reward", "type=format")
    shown = calibrl("replay", JOB_ID, *rewards, "--first-step", "5", "--last-step", "60", "--limit", "40")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert service.requests[-1].body == {
        "rewards": [{"type": "numeric", "relative_tolerance": 0.01}, {"type": "format"}],
        "first_step": 5,
        "last_step": 60,
        "limit": 40,
    }
    for part in ("40 of 40 completions scored", "newly passing 1, newly failing 0", "now passes", "no verdict"):
        assert part in shown.stdout
    assert "\x1b" not in shown.stdout
    service.on("POST", REPLAY_PATH, replayed(scored=16, stopped="scoring took more than 60 s", data=[]))
    assert "16 of 40 completions scored: scoring took more than 60 s" in calibrl("replay", JOB_ID, *rewards).stdout
    assert json.loads(calibrl("replay", JOB_ID, *rewards, "--json").stdout)["scored"] == 16
    assert "write it as key=value" in fault(calibrl("replay", JOB_ID, "--reward", "numeric"), 2)
