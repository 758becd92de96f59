"""The evaluations page: the list, models beside one another, and stored completions scored again."""

from typing import Any
from uuid import UUID, uuid4

from streamlit.testing.v1 import AppTest

from calibrl.schemas import Comparison, Evaluation, Job, JobStatus, Me, PairedDifference, Replay, Role
from dashboard.views.evaluation_table import verdict
from tests.support.waiting import LIMIT_SECONDS

from .conftest import HOSTILE, Refusal, World
from .test_pages import NAVIGATION, charts, finished, html, job_page


def evaluations_page(view: str | None = None, **query: str) -> AppTest:
    app = AppTest.from_file(NAVIGATION, default_timeout=LIMIT_SECONDS)
    app.switch_page("app_pages/evaluations.py")
    for name, value in (query | ({"view": view} if view else {})).items():
        app.query_params[name] = value
    return finished(app.run())


def measured(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def evaluated(world: World, name: str, *accuracies: float, split: str = "test") -> Job:
    """An evaluation that has succeeded: of each model its accuracy."""
    job = world.add(kind="evaluate", name=name, status=JobStatus.SUCCEEDED)
    results = [
        {
            "model": "tiny-vlm",
            "model_index": index,
            "chosen": {"builtin": "tiny-vlm", "seed": index},
            "split": split,
            "prompts": 100,
            "samples": 8,
            "metrics": {"accuracy": measured(value), "length_mean": {"value": 28.0}},
            "sources": {},
        }
        for index, value in enumerate(accuracies)
    ]
    answer = Evaluation.model_validate({"job_id": job.id, "results": results, "comparisons": []})
    world.answers[f"GET /v1/jobs/{job.id}/evaluation"] = lambda body: answer.model_dump(mode="json")
    return job


def compared(world: World, *models: tuple[Job, int], pairs: list[dict[str, Any]], **more: Any) -> None:
    shown = [
        {
            "job_id": job.id,
            "job": job.name,
            "model_index": index,
            "model": "tiny-vlm",
            "chosen": {"builtin": "tiny-vlm"},
            "accuracy": 0.5,
        }
        for job, index in models
    ]
    record = {"split": "test", "prompts": 100, "seed": 0, "models": shown, "pairs": pairs, "settings_differ": []} | more
    answer = {"data": [Comparison.model_validate(record).model_dump(mode="json")], "has_more": False}
    world.answers["GET /v1/evaluations/compare"] = lambda body: answer


def pair(difference: float, low: float, high: float, first: int = 0, second: int = 1) -> dict[str, Any]:
    record = {"first": first, "second": second, "difference": difference, "low": low, "high": high}
    return record | {"distinguishable": not low <= 0 <= high}


def test_the_list_shows_evaluations_and_their_results(world: World) -> None:
    job = evaluated(world, "before-and-after", 0.42, 0.71)
    world.add(name="a-training")
    world.add(kind="evaluate", name="on-its-way", status=JobStatus.RUNNING)
    text = html(evaluations_page())
    assert f'href="job?id={job.id}"' in text and "42% / 71% (2 models)" in text
    assert "on-its-way" in text and "a-training" not in text


def test_the_list_is_asked_for_with_its_filters(world: World) -> None:
    app = evaluations_page()
    app.text_input(key="evaluations-text").set_value("digits ")
    app.selectbox(key="evaluations-status").set_value("failed")
    app.selectbox(key="evaluations-project").set_value("default")
    app.run()
    asked = [path for path in world.requests if path.startswith("/v1/jobs?")][-1]
    for part in ("kind=evaluate", "q=digits", "status=failed", "project=default"):
        assert part in asked
    assert "No evaluations match" in html(finished(app))


def test_the_list_goes_on_after_the_last_one_shown(world: World) -> None:
    for number in range(26):
        world.add(kind="evaluate", name=f"no-{number:02d}")
    app = evaluations_page()
    next(button for button in app.button if button.label == "Older").click().run()
    assert "no-25" in html(finished(app)) and "no-24" not in html(app)
    assert f"after={list(world.jobs)[24]}" in world.requests[-1]


def test_nothing_there_yet(world: World) -> None:
    assert "No evaluations yet" in html(evaluations_page())
    assert "Select evaluations" in html(evaluations_page("Compare"))
    assert "No training jobs yet" in html(evaluations_page("Re-score"))


def test_a_new_evaluation_is_offered_to_those_who_may(world: World) -> None:
    assert [button.label for button in evaluations_page().button] == ["New evaluation"]
    from .conftest import forget

    forget()
    world.me = Me(user="eve", admin=False, scope="write", projects={"default": Role.VIEWER})
    assert not evaluations_page().button


def test_two_evaluations_side_by_side(world: World) -> None:
    first, second = evaluated(world, "before", 0.42), evaluated(world, "after", 0.61)
    compared(world, (first, 0), (second, 0), pairs=[pair(0.19, 0.1, 0.28)], settings_differ=["rewards"])
    app = evaluations_page("Compare", jobs=f"{first.id},{second.id}")
    text = html(app)
    assert "42.0%" in text and "(32.0% to 52.0%)" in text and "28.0" in text
    assert "+19.0 pp" in text and "+10.0 to +28.0 pp" in text
    assert "after: tiny-vlm, seed 0 is better (95 %)" in text  # equal names get the name of the evaluation
    (figure,) = charts(app).values()
    assert [trace["x"] for trace in figure["data"]] == [[0.42], [0.61]]
    assert any("differ in rewards" in warning.value for warning in app.warning)


def test_a_jobs_own_results_have_the_same_figures_and_verdict(world: World) -> None:
    job = evaluated(world, "one", 0.5, 0.52)
    world.change(job, result={"results": [{}]})
    compared(world, (job, 0), (job, 1), pairs=[pair(0.02, -0.02, 0.06)])
    text = html(job_page(job.id))
    assert "50.0%" in text and "not significant" in text and "overlap widely" not in text


def test_results_of_a_job_that_is_out_of_sight_are_shown(world: World) -> None:
    job, gone = evaluated(world, "one", 0.5), uuid4()
    world.change(job, result={"results": [{}]})
    answer = world.answers[f"GET /v1/jobs/{job.id}/evaluation"](None)
    answer["results"][0]["chosen"] = {"from_job": str(gone)}
    world.answers[f"GET /v1/jobs/{job.id}/evaluation"] = lambda body: answer
    assert f"job {str(gone)[:8]} (best)" in html(job_page(job.id))


def test_a_difference_whose_interval_covers_0_is_inconclusive(world: World) -> None:
    job = evaluated(world, "one", 0.5, 0.52)
    compared(world, (job, 0), (job, 1), pairs=[pair(0.02, -0.02, 0.06)])
    assert "not significant" in html(evaluations_page("Compare", jobs=str(job.id)))


def test_verdicts_name_the_better_one() -> None:
    def said(difference: float, low: float, high: float) -> str:
        return verdict(PairedDifference.model_validate(pair(difference, low, high)), "a", "b")

    assert (said(0.1, 0.05, 0.2), said(-0.1, -0.2, -0.05)) == ("b is better (95 %)", "a is better (95 %)")
    assert said(0.1, -0.01, 0.2) == "not significant"


def test_other_prompts_are_explained_and_the_figures_stay(world: World) -> None:
    first, second = evaluated(world, "before", 0.42), evaluated(world, "after", 0.61)
    detail = f"of 100 prompts 3 pair {HOSTILE}"
    world.answers["GET /v1/evaluations/compare"] = lambda body: Refusal(409, detail)
    app = evaluations_page("Compare", jobs=f"{first.id},{second.id}")
    assert "42.0%" in html(app) and "<script>" not in html(app)
    assert any(detail in text.value for text in app.text)


def test_an_evaluation_without_figures_is_left_out(world: World) -> None:
    good, bad = evaluated(world, "good", 0.42), evaluated(world, "bad", 0.61)
    world.answers[f"GET /v1/jobs/{bad.id}/evaluation"] = lambda body: Refusal(409, "of another form")
    app = evaluations_page("Compare", jobs=f"{good.id},{bad.id}")
    assert "42.0%" in html(app)
    assert [text.value for text in app.text] == ["bad is not shown: of another form"]


def replayed(job_id: UUID, **changes: Any) -> dict[str, Any]:
    flip = {
        "sample_id": 1,
        "step": 40,
        "prompt_id": HOSTILE,
        "completion": 2,
        "reward_before": 1.1,
        "reward_after": 0.1,
        "passed_before": True,
        "passed_after": False,
        "by_verifier": {"numeric": 0.0},
        "failure": "took too long",
    }
    counts = {"completions": 80, "scored": 80, "passed_before": 40, "passed_after": 39, "now_passed": 0}
    record = {"job_id": job_id, **counts, "now_failed": 1, "rewards_changed": 1, "failures": 1, "stopped": None}
    return Replay.model_validate(record | {"versions": {}, "data": [flip]} | changes).model_dump(mode="json")


def score(world: World, **changes: Any) -> tuple[AppTest, list[Any]]:
    job, sent = world.add(name="trained"), []

    def replay(body: Any) -> Any:
        sent.append(body)
        return replayed(job.id, **changes)

    world.answers[f"POST /v1/jobs/{job.id}/replay"] = replay
    app = evaluations_page("Re-score")
    next(button for button in app.button if button.label == "Re-score").click()
    return finished(app.run()), sent


def test_flips_are_listed_after_scoring_again(world: World) -> None:
    app, (sent,) = score(world)
    assert sent["rewards"][0]["type"] == "numeric"
    assert (sent["first_step"], sent["last_step"], sent["limit"]) == (0, None, 1000)
    assert {tile.label: tile.value for tile in app.metric}["Newly failing"] == "1"
    text = html(app)
    assert "panel=Rollouts&step=40" in text and "no. 3" in text and "1.10 → 0.10" in text
    assert "No score: took too long" in text
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_agreement_and_nothing_kept_are_said(world: World) -> None:
    app, _ = score(world, data=[], now_failed=0, stopped="the limit")
    assert "No changes" in html(app) and any(text.value == "the limit" for text in app.text)
    from .conftest import forget

    forget()
    world.jobs.clear()
    app, _ = score(world, data=[], completions=0, scored=0)
    assert "No completions" in html(app)


def test_an_unknown_job_in_the_address_is_explained(world: World) -> None:
    app = evaluations_page("Compare", jobs=f"nonsense,{uuid4()}")
    assert any("Not found, or you have no access" in header.value for header in app.subheader)
