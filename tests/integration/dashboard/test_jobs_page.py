"""The jobs list: rows, filters, order, pages, projects, and what it shows when it is empty."""

from urllib.parse import parse_qs

import pytest
import yaml

from calibrl.schemas import JobStatus, Role, job_spec_adapter
from dashboard.reads import service
from tests.support.dashboard.evaluations import evaluated
from tests.support.dashboard.pages import finished, html, jobs_page, open_page, paths, press
from tests.support.dashboard.world import Refusal, World

pytestmark = pytest.mark.integration

PAGE = 30  # jobs shown at once


def test_the_jobs_list_shows_each_job_with_a_link_to_it(world: World) -> None:
    job = world.add(name="digits-calibrl")
    world.measure(job, range(1, 41))
    text = html(jobs_page())
    assert f'href="job?id={job.id}"' in text
    assert "▶ running" in text
    assert "40 / 280" in text
    assert ">val<" in text


def test_the_jobs_list_filters_by_status(world: World) -> None:
    world.add(name="one-that-runs")
    world.add(name="one-that-failed", status=JobStatus.FAILED)
    app = jobs_page()
    app.button_group[0].set_value("failed").run()
    text = html(finished(app))
    assert "one-that-failed" in text
    assert "one-that-runs" not in text


def test_an_empty_list_says_how_to_submit_a_job(world: World) -> None:
    app = jobs_page()
    assert "No jobs yet" in html(app)
    assert any("calibrl submit" in block.value for block in app.code)


def test_the_spec_that_an_empty_list_shows_is_a_valid_one(world: World) -> None:
    spec = job_spec_adapter.validate_python(yaml.safe_load(jobs_page().code[0].value))
    assert spec.name == "my-first-job"


def test_the_list_is_searched_sorted_and_filtered_by_label(world: World) -> None:
    world.add(name="zebra", labels={"team": "vision"})
    world.add(name="aardvark")
    app = jobs_page()
    app.selectbox(key="sort").set_value("name").run()
    text = html(finished(app))
    assert text.index("aardvark") < text.index("zebra")
    assert "team: vision" in text
    app.text_input(key="label").set_value("team:vision").run()
    assert "aardvark" not in html(finished(app))
    app.text_input(key="q").set_value("nothing like it").run()
    assert "No jobs match these filters" in html(finished(app))


def test_rows_have_small_curves_in_one_call(world: World) -> None:
    for name in ("one", "two"):
        world.measure(world.add(name=name), range(1, 101))
    world.requests.clear()
    text = html(jobs_page())
    assert text.count("data:image/svg+xml") == 4
    assert 'alt="entropy of one"' in text
    assert len([path for path in world.requests if path.startswith("/v1/metrics")]) == 1
    assert paths(world.requests) == {"jobs", "metrics", "me", "projects", "views"}  # me and projects: who may submit


def test_several_jobs_are_picked_to_compare(world: World) -> None:
    first, second = world.add(name="one"), world.add(name="two")
    app = jobs_page()
    app.multiselect(key="compare").set_value([first.id, second.id]).run()
    assert finished(app).multiselect(key="compare").value == [first.id, second.id]


@pytest.mark.parametrize(("sort", "back", "on"), [("newest", "Newer", "Older"), ("name", "Back", "More")])
def test_the_list_moves_to_the_next_and_previous_page(world: World, sort: str, back: str, on: str) -> None:
    names = [f"job-{number:02d}" for number in range(2 * PAGE + 1)]
    for name in names:
        world.add(name=name)

    def shown() -> list[str]:
        return [name for name in names if f">{name}</a>" in html(app)]

    app = jobs_page()
    app.selectbox(key="sort").set_value(sort).run()
    first = shown()
    assert len(first) == PAGE and back not in [button.label for button in app.button]
    press(app, on)
    second = shown()
    press(app, on)
    assert {*first, *second, *shown()} == {*names} and len(shown()) == 1
    assert on not in [button.label for button in app.button]
    press(app, back)
    assert shown() == second
    app.text_input(key="q").set_value("job-").run()
    assert shown() == first  # another list begins with its first page


def test_the_viewer_of_several_projects_sees_each_jobs_and_chooses_one(world: World) -> None:
    world.sign_in("eve", dict.fromkeys(("default", "vision"), Role.MEMBER))
    world.add(name="one-of-vision", project="vision")
    world.add(name="one-of-mine")
    app = jobs_page()
    assert '<td data-label="Project">vision</td>' in html(app) and ">Project</th>" in html(app)
    app.selectbox(key="project").set_value("vision").run()
    assert "one-of-vision" in html(finished(app)) and "one-of-mine" not in html(app)
    app.text_input(key="q").set_value("nothing like it").run()
    assert "No jobs match these filters" in html(finished(app))


def test_the_viewer_of_one_project_sees_no_project_name(world: World) -> None:
    world.add()
    app = jobs_page()
    assert ">Project</th>" not in html(app)
    assert "Project" not in [box.label for box in app.selectbox]


def test_an_empty_list_links_members_to_the_form(world: World) -> None:
    assert [link.proto.label for link in jobs_page().get("page_link")] == ["New job"]
    world.sign_in("eve", {"default": Role.VIEWER})
    assert not jobs_page().get("page_link")


def test_an_evaluation_is_listed_with_its_accuracies(world: World) -> None:
    evaluated(world, "one", 0.42, 0.71)
    assert "42% / 71% (2 models)" in html(jobs_page())


@pytest.mark.parametrize("status", [404, 409, 500])
def test_an_evaluation_that_can_not_be_read_leaves_the_list(world: World, status: int) -> None:
    evaluated(world, "good", 0.42)
    bad = evaluated(world, "bad", 0.61)
    world.refusals[f"GET /v1/jobs/{bad.id}/evaluation"] = Refusal(status)
    for text in (html(jobs_page()), html(open_page("evaluations"))):
        assert "42%" in text and ">bad</a>" in text and "61%" not in text


def test_an_evaluation_without_accuracies_leaves_the_list(world: World) -> None:
    evaluated(world, "empty")
    other = evaluated(world, "other", 0.42)
    result = other.result or {}
    del result["results"][0]["metrics"]["accuracy"]
    world.change(other, result=result)
    for text in (html(jobs_page()), html(open_page("evaluations"))):
        assert ">empty</a>" in text and ">other</a>" in text


def test_an_unknown_filter_in_the_url_is_named(world: World) -> None:
    world.add()
    app = open_page("jobs", status="running")  # the name of the option, whose label is Running
    assert not app.warning and app.session_state["status"] == "running"
    assert "asks for sort 'fastest'" in open_page("jobs", sort="fastest").warning[0].value


def test_a_part_of_the_label_filter_that_is_no_label_is_named(world: World) -> None:
    world.add(labels={"team": "vision"})
    app = jobs_page()
    app.text_input(key="label").set_value("team:vision, group").run()
    assert "Not a label\\: group" in finished(app).warning[0].value


def test_a_row_has_id_and_user_and_the_list_a_count(world: World) -> None:
    job = world.add(name="seeds", user="bob")
    world.add(name="seeds")
    app = jobs_page()
    assert f"{str(job.id)[:8]} · bob" in html(app)
    assert "2 jobs" in [caption.value for caption in app.caption]


def test_a_page_of_the_list_has_an_address(world: World) -> None:
    for number in range(PAGE + 2):
        world.add(name=f"job-{number:02d}")
    app = press(jobs_page(), "Older")
    after = app.query_params["before"]
    assert html(open_page("jobs", before=after)).count("job?id=") == 2
    assert "before" not in press(app, "Newer").query_params


def test_a_link_to_a_page_beats_the_page_of_the_session(world: World) -> None:
    jobs = [world.add(name=f"job-{number:02d}") for number in range(PAGE + 3)]
    app = press(jobs_page(), "Older")
    app.query_params["before"] = str(jobs[2].id)
    assert html(finished(app.run())).count("job?id=") == 2
    assert html(press(app, "Newer")).count("job?id=") == PAGE


def test_a_page_is_saved_as_a_view_with_its_choices(world: World) -> None:
    app = open_page("jobs", status="Running", q="digits")
    app.text_input(key="view-name").set_value("my runs").run()
    app = press(app, "Save this page")
    (view,) = service.client().views()
    assert (view.name, view.address) == ("my runs", "?status=Running&q=digits")
    assert 'href="./?status=Running&amp;q=digits"' in html(app)
    assert 'href="./?status=Running&amp;q=digits"' in html(open_page("compare"))  # not the page that is open
    app.button(key="drop-view-my runs").click().run()
    assert service.client().views() == [] and "my runs" not in html(finished(app))


def test_a_view_keeps_all_values_of_a_parameter(world: World) -> None:
    app = open_page("jobs", **{"list-view": "Table"})
    app.query_params["run-metrics"] = ["reward/mean", "loss/grad_norm"]
    finished(app.run()).text_input(key="view-name").set_value("two metrics").run()
    press(app, "Save this page")
    (view,) = service.client().views()
    assert parse_qs(view.address.removeprefix("?"))["run-metrics"] == ["reward/mean", "loss/grad_norm"]
