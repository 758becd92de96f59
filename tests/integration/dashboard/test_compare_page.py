"""The compare page: several jobs' curves and what differs between their specs."""

from typing import Any
from uuid import uuid4

import pytest
from streamlit.testing.v1 import AppTest

from calibrl.schemas import Job
from dashboard.palette import MODELS
from dashboard.reads import service
from dashboard.reads.catalogue import MAX_OPTIONS
from tests.support.dashboard.pages import charts, finished, html, open_page
from tests.support.dashboard.world import BEGAN, HOSTILE, World

pytestmark = pytest.mark.integration


def compare_page(*jobs: object) -> AppTest:
    return open_page("compare", jobs=",".join(map(str, jobs)))


def curves(app: AppTest) -> dict[str, Any]:
    return {name: figure for name, figure in charts(app).items() if name.startswith("compare-")}


def test_a_comparison_needs_two_jobs(world: World) -> None:
    job = world.add()
    assert "Select two or more jobs" in html(compare_page(job.id))


def test_two_jobs_and_their_differences_are_shown(world: World) -> None:
    first = world.add(name="one", spec={"algorithm": {"type": "calibrl"}})
    second = world.add(name="two", spec={"algorithm": {"type": "grpo"}})
    for job in (first, second):
        world.measure(job, range(1, 41))
    app = compare_page(first.id, second.id)
    text = html(app)
    assert "<code>algorithm.type</code>" in text and "<code>algorithm.negative_slope</code>" in text
    assert "<code>kind</code>" not in text
    assert f'href="job?id={first.id}"' in text and f'href="job?id={second.id}"' in text
    assert app.multiselect[0].value == [first.id, second.id]
    assert any(path.startswith("/v1/metrics?") for path in world.requests)


def test_names_and_specs_are_inert(world: World) -> None:
    first = world.add(name="a", spec={"labels": {"note": HOSTILE}})
    second = world.add(name="b", spec={"labels": {"note": "x"}})
    text = html(compare_page(first.id, second.id))
    assert "<script>" not in text and "&lt;script&gt;" in text


def colours(app: AppTest) -> int:
    return len({colour for colour in MODELS if f"color:{colour}" in html(app)})


def names(app: AppTest) -> set[str]:
    return {
        trace["name"] for trace in charts(app)["compare-step-exploration-entropy"]["data"] if "dash" in trace["line"]
    }


def test_seeds_of_one_config_are_one_line_if_the_reader_says_so(world: World) -> None:
    spec = {"algorithm": {"type": "grpo"}}
    jobs = [world.add(name=f"grpo-{seed}", spec=spec | {"seed": seed}) for seed in (1, 2)]
    jobs.append(world.add(name="calibrl", spec={"algorithm": {"type": "calibrl"}, "seed": 1}))
    for job in jobs:
        world.measure(job, range(1, 41))
    app = compare_page(*(job.id for job in jobs))
    toggle = app.toggle(key="seeds")
    assert not toggle.value
    assert (colours(app), names(app)) == (3, {"grpo-1", "grpo-2", "calibrl"})
    grouped = finished(toggle.set_value(True).run())
    assert (colours(grouped), names(grouped)) == (2, {"grpo-1, seeds 1, 2", "calibrl"})
    linked = open_page("compare", jobs=",".join(str(job.id) for job in jobs), seeds="true")
    assert colours(linked) == 2


def test_two_runs_of_one_seed_are_no_seeds(world: World) -> None:
    jobs = [world.add(name=name, spec={"algorithm": {"type": "grpo"}, "seed": 0}) for name in ("run", "again")]
    for job in jobs:
        world.measure(job, range(1, 41))
    app = compare_page(*(job.id for job in jobs))
    assert "seeds" not in [toggle.key for toggle in app.toggle]
    assert (colours(app), names(app)) == (2, {"run", "again"})


def test_a_pause_is_cut_out_of_the_axis_of_time(world: World) -> None:
    """Two attempts of 40 s, with 1000 s between them."""
    jobs = [world.add(spec={"seed": seed}, attempt=2, started_at=BEGAN) for seed in (1, 2)]
    world.run(jobs[0], (0, 40), (1040, None))
    world.run(jobs[1], (0, 40), (50, None))
    for job, pause in zip(jobs, (1000, 10), strict=True):
        world.measure(job, range(1, 41))
        world.measure(job, range(41, 81), later=pause)
    app = compare_page(*(job.id for job in jobs))
    app.button_group(key="axis").set_value("time").run()
    for group in (False, True):
        shown = finished(app.toggle(key="seeds").set_value(group).run())
        for figure in curves(shown).values():
            for trace in figure["data"]:
                assert trace["x"] == sorted(trace["x"])
                assert trace["x"][-1] == 80


def test_jobs_that_are_left_out_of_an_address_are_counted(world: World) -> None:
    jobs = [world.add(name=f"job {number}") for number in range(51)]
    app = compare_page(uuid4(), *(job.id for job in jobs))
    assert app.multiselect[0].value == [job.id for job in jobs[:50]]
    text = " ".join(warning.value for warning in app.warning)
    assert "1 of 52 jobs in the URL do not exist" in text
    assert "First 50 of 51 jobs" in text


def test_many_jobs_differ_in_colour_or_dash_without_a_chart_legend(world: World) -> None:
    jobs = [world.add(name=f"job {number}", spec={"seed": number}) for number in range(40)]
    for job in jobs:
        world.measure(job, range(1, 4), {"exploration/entropy": 0.5})
    app = compare_page(*(job.id for job in jobs))
    figure = charts(app)["compare-step-exploration-entropy"]
    looks = {(trace["line"]["color"], trace["line"]["dash"]) for trace in figure["data"] if "dash" in trace["line"]}
    assert len(looks) == 40 and not figure["layout"]["showlegend"]
    assert not any(request.startswith("/v1/jobs/") for request in world.requests)  # lists, not one request per job
    assert len(world.requests) < 20


def test_a_job_keeps_its_colour_when_another_leaves(world: World) -> None:
    jobs = [world.add(name=f"job {number}") for number in range(3)]
    app = compare_page(*(job.id for job in jobs))

    def colour(job: Job) -> str:
        line = next(part for part in html(app).split("<span>") if f"job?id={job.id}" in part and "color:" in part)
        return line.partition("color:")[2][:7]

    before = colour(jobs[2])
    app.multiselect[0].set_value([jobs[1].id, jobs[2].id]).run()
    finished(app)
    assert colour(jobs[2]) == before


def test_values_are_shown_beside_those_of_a_baseline(world: World) -> None:
    """Accuracy 0.2, 0.6, 0.5 of the baseline; 0.4 of the other: last -0.1, which is -20 %, best -0.2."""
    base, other = world.add(name="base", spec={"seed": 1}), world.add(name="other", spec={"seed": 2})
    for step, value in ((1, 0.2), (2, 0.6), (3, 0.5)):
        world.measure(base, range(step, step + 1), {"validation/accuracy": value})
    world.measure(other, range(1, 2), {"validation/accuracy": 0.4})
    app = compare_page(base.id, other.id)
    assert "<code>seed</code>" in html(app).partition(">Validation accuracy</th>")[0]  # the differences come first
    app.multiselect(key="metrics").set_value(["validation/accuracy"])
    app.selectbox(key="baseline").set_value(base.id).run()
    text = html(finished(app))
    assert ">0.5<div" in text and ">best 0.6</div>" in text
    assert ">0.4 (−0.1, −20.0 %)<div" in text and ">best 0.4 (−0.2, −33.3 %)</div>" in text
    assert list(curves(app)) == ["compare-step-validation-accuracy"]
    linked = open_page("compare", jobs=f"{base.id},{other.id}", baseline="base")
    assert linked.selectbox(key="baseline").value == base.id


def test_a_job_older_than_the_latest_is_found_by_name_id_or_link(world: World) -> None:
    old, other = world.add(name="one-step"), world.add(name="one-step-again")
    for _ in range(MAX_OPTIONS):
        world.add()
    app = compare_page()
    assert str(old.id)[:8] not in " ".join(app.multiselect[0].options)
    app.multiselect[0].set_value([f"https://host/job?id={old.id}&panel=Log", str(other.id)[:13]]).run()
    assert finished(app).multiselect[0].value == [old.id, other.id]
    app.multiselect[0].set_value(["one-step"]).run()
    assert any("2 jobs match" in caption.value for caption in finished(app).caption)
    app.button_group[0].set_value(old.id).run()
    assert finished(app).multiselect[0].value == [old.id]
    app.multiselect[0].set_value([old.id, "no-such-name"]).run()
    assert any("No jobs match no" in caption.value for caption in finished(app).caption)


def test_jobs_of_different_configs_cannot_be_grouped(world: World) -> None:
    jobs = [world.add(spec={"steps": steps}) for steps in (1, 2)]
    app = compare_page(*(job.id for job in jobs))
    assert "seeds" not in [toggle.key for toggle in app.toggle]
    assert "No evaluations yet" in " ".join(caption.value for caption in app.caption)


def test_two_values_of_jobs_are_drawn_as_points_and_on_parallel_axes(world: World) -> None:
    """Accuracy 0.2 at learning rate 1e-4 and 0.6 at 1e-5; the third job has no accuracy."""
    for name, rate, accuracy in (("a", 1e-4, 0.2), ("b", 1e-5, 0.6), ("c", 1e-6, None)):
        job = world.add(name=name, spec={"optimizer": {"lr": rate}})
        world.measure(job, range(1, 2), {"reward/mean": 1.0} if accuracy is None else {"validation/accuracy": accuracy})
    app = compare_page(*(job.id for job in service.jobs().data))
    figures = charts(app)
    colours = {"b": MODELS[1], "a": MODELS[2]}  # of the legend, in which "c" is first
    assert {trace["name"]: trace["marker"]["color"] for trace in figures["scatter"]["data"]} == colours
    assert {trace["name"]: trace["line"]["color"] for trace in figures["parallel"]["data"]} == colours
    points = {trace["name"]: (trace["x"], trace["y"]) for trace in figures["scatter"]["data"]}
    assert points == {"a": ([1e-4], [0.2]), "b": ([1e-5], [0.6])}
    assert "1 of 3 jobs have no value" in " ".join(caption.value for caption in app.caption)
    lines = {trace["name"]: (trace["x"], trace["y"]) for trace in figures["parallel"]["data"]}
    axes = ["optimizer.lr", "validation/accuracy"]
    assert lines == {"a": (axes, [1.0, 0.0]), "b": (axes, [0.0, 1.0])}
    app.selectbox(key="scatter-x").set_value("reward/answer_accuracy").run()
    assert "scatter" not in charts(finished(app))


def test_names_of_metrics_in_the_address_are_inert(world: World) -> None:
    jobs = [world.add(spec={"seed": seed}) for seed in (1, 2)]
    app = open_page("compare", jobs=",".join(str(job.id) for job in jobs), metrics="![](https://evil/x.png)")
    (caption,) = (caption.value for caption in app.caption if "have no value" in caption.value)
    assert "evil" in caption and "![](" not in caption
