"""The evaluations page: the list, models beside one another, and stored completions scored again."""

from uuid import uuid4

import pytest
from streamlit.testing.v1 import AppTest

from calibrl.schemas import Job, Role
from jobs.evaluations import replay
from tests.support.dashboard.evaluations import evaluated
from tests.support.dashboard.pages import charts, finished, html, job_page, open_page, press
from tests.support.dashboard.world import HOSTILE, World

pytestmark = pytest.mark.integration
EXACT = {"rewards": [{"type": "exact"}]}


def evaluations_page(view: str | None = None, **query: str) -> AppTest:
    return open_page("evaluations", view=view, **query)


def test_the_list_shows_evaluations_and_their_results(world: World) -> None:
    job = evaluated(world, "before-and-after", 0.42, 0.71)
    world.add(name="a-training")
    world.add(kind="evaluate", name="on-its-way")
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


def test_the_next_page_starts_after_the_last_item_shown(world: World) -> None:
    jobs = [world.add(kind="evaluate", name=f"no-{number:02d}") for number in range(26)]
    app = press(evaluations_page(), "Older")
    assert "no-00" in html(app) and "no-01" not in html(app)
    assert f"after={jobs[1].id}" in world.requests[-1]


def test_empty_evaluation_pages_say_that_there_is_no_data_yet(world: World) -> None:
    assert "No evaluations yet" in html(evaluations_page())
    assert "Select evaluations" in html(evaluations_page("Compare"))
    assert "No training jobs yet" in html(evaluations_page("Re-score"))


def test_a_new_evaluation_is_offered_to_members(world: World) -> None:
    assert [button.label for button in evaluations_page().button] == ["New evaluation"]
    world.sign_in("eve", {"default": Role.VIEWER})
    assert not evaluations_page().button


def test_two_evaluations_side_by_side(world: World) -> None:
    """On each prompt the second model is 0.19 better, so that each resample has this difference."""
    first, second = evaluated(world, "before", 0.42), evaluated(world, "after", 0.61, spec=EXACT)
    app = evaluations_page("Compare", jobs=f"{first.id},{second.id}")
    text = html(app)
    assert "42.0%" in text and "(32.0% to 52.0%)" in text and "28.0" in text
    assert ">+19.0 pp<" in text and "+19.0 to +19.0 pp" in text
    assert "after: tiny-vlm, seed 0 is better (95 %)" in text  # equal names get the name of the evaluation
    (figure,) = charts(app).values()
    assert [trace["x"] for trace in figure["data"]] == [[0.42], [0.61]]
    assert any("differ in rewards" in warning.value for warning in app.warning)


def test_a_jobs_own_results_have_the_same_figures_and_verdict(world: World) -> None:
    """Each model is better on one of two prompts."""
    job = evaluated(world, "one", [1.0, 0.0], [0.0, 1.0])
    text = html(job_page(job.id))
    assert "50.0%" in text and "not significant" in text and "overlap widely" not in text


def test_results_of_a_job_without_access_are_shown(world: World) -> None:
    gone = uuid4()
    job = evaluated(world, "one", 0.5, spec={"models": [{"from_job": str(gone)}]})
    assert f"job {str(gone)[:8]} (best)" in html(job_page(job.id))


def test_a_difference_whose_interval_covers_0_is_inconclusive(world: World) -> None:
    job = evaluated(world, "one", [1.0, 0.0], [0.0, 1.0])
    assert "not significant" in html(evaluations_page("Compare", jobs=str(job.id)))


def test_other_prompts_are_explained_and_the_figures_stay(world: World) -> None:
    first = evaluated(world, "before", 0.42, split=HOSTILE)
    second = evaluated(world, "after", 0.61, split=HOSTILE, prompts="another")
    app = evaluations_page("Compare", jobs=f"{first.id},{second.id}")
    assert "42.0%" in html(app) and "<script>" not in html(app)
    (text,) = [text.value for text in app.text if "of which 0 are the same" in text.value]
    assert HOSTILE.split("'")[0] in text


def test_an_evaluation_without_figures_is_left_out(world: World) -> None:
    good, bad = evaluated(world, "good", 0.42), evaluated(world, "bad", 0.61)
    world.change(bad, result={"results": "odd"})
    app = evaluations_page("Compare", jobs=f"{good.id},{bad.id}")
    assert "42.0%" in html(app)
    reason = f"Job {bad.id} has results in a format that this version does not know."
    assert [text.value for text in app.text] == [f"bad is not shown: {reason}"]


def test_an_unknown_job_in_the_address_is_explained(world: World) -> None:
    good = evaluated(world, "good", 0.42)
    app = evaluations_page("Compare", jobs=f"nonsense,{uuid4()},{good.id}")
    assert [note.value.startswith("2 of 3 jobs in the URL do not exist") for note in app.warning] == [True]
    assert "42.0%" in html(app)


@pytest.fixture
def trained(world: World) -> Job:
    """A job with a passed completion of the answer 8 and a failed one of the answer 6; the truth is 7."""
    job = world.add(name="trained")
    world.keep_sample(job, 40, "<answer>8</answer>", "<answer>6</answer>", prompt_id=HOSTILE)
    return job


def test_flips_are_listed_after_scoring_again(world: World, trained: Job) -> None:
    app = press(evaluations_page("Re-score"), "Re-score")
    (sent,) = world.asked(f"POST /v1/jobs/{trained.id}/replay")
    assert sent["rewards"][0]["type"] == "numeric"
    assert (sent["first_step"], sent["last_step"], sent["limit"]) == (0, None, 1000)
    assert {tile.label: tile.value for tile in app.metric} == {
        "Scored": "2 of 2",
        "Passed": "0",
        "Newly passing": "0",
        "Newly failing": "1",
    }
    text = html(app)
    assert "panel=Rollouts&step=40" in text and "no. 1" in text and "1.10 → 0.00" in text
    assert "no. 2" not in text
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_a_limit_is_named_and_equal_results_are_no_changes(world: World) -> None:
    world.keep_sample(world.add(), 40, "<answer>7</answer>", "<answer>6</answer>")
    app = evaluations_page("Re-score")
    app.number_input(key="replay:limit").set_value(1)
    app = press(app, "Re-score")
    assert "No changes" in html(app) and [text.value for text in app.text] == ["the limit is 1"]


def test_a_completion_without_a_score_names_the_reason(
    world: World, trained: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that scores is replaced: a verifier would use up its time limit."""
    failed = {"reward": 0.0, "passed": False, "by_verifier": {}, "failure": "math: no verdict within <b>5</b> seconds"}
    monkeypatch.setattr(replay, "_score", lambda found, request: ([failed] * 2, None))
    text = html(press(evaluations_page("Re-score"), "Re-score"))
    assert text.count("No score: math: no verdict within &lt;b&gt;5&lt;/b&gt; seconds") == 2


def test_a_job_without_completions_is_not_scored(world: World) -> None:
    job = world.add()
    app = press(evaluations_page("Re-score"), "Re-score")
    assert not app.metric
    assert any(f"Job {job.id} has no stored completions" in block.value for block in app.code)
