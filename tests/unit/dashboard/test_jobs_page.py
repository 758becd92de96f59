"""The jobs list: its pages, projects, and what there is when it is empty."""

import pytest

from calibrl.schemas import Me, Role

from .conftest import Refusal, World, forget
from .test_evaluations_page import evaluated, evaluations_page
from .test_pages import finished, html, jobs_page

PAGE = 30  # jobs shown at once


@pytest.mark.parametrize(("sort", "back", "on"), [("newest", "Newer", "Older"), ("name", "Back", "More")])
def test_the_list_goes_on_and_back_a_page(world: World, sort: str, back: str, on: str) -> None:
    names = [f"job-{number:02d}" for number in range(2 * PAGE + 1)]
    for name in names:
        world.add(name=name)

    def shown() -> list[str]:
        return [name for name in names if f">{name}</a>" in html(app)]

    def press(label: str) -> None:
        next(button for button in app.button if button.label == label).click().run()
        finished(app)

    app = jobs_page()
    app.selectbox(key="sort").set_value(sort).run()
    first = shown()
    assert len(first) == PAGE and back not in [button.label for button in app.button]
    press(on)
    second = shown()
    press(on)
    assert {*first, *second, *shown()} == {*names} and len(shown()) == 1
    assert on not in [button.label for button in app.button]
    press(back)
    assert shown() == second
    app.text_input(key="q").set_value("job-").run()
    assert shown() == first  # another list begins with its first page


def test_the_viewer_of_several_projects_sees_each_jobs_and_chooses_one(world: World) -> None:
    world.me = Me(user="ann", admin=False, scope="write", projects=dict.fromkeys(("default", "vision"), Role.MEMBER))
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


def test_an_empty_list_leads_those_to_the_form_who_may_submit(world: World) -> None:
    assert [link.proto.label for link in jobs_page().get("page_link")] == ["New job"]
    forget()
    world.me = Me(user="eve", admin=False, scope="write", projects={"default": Role.VIEWER})
    assert not jobs_page().get("page_link")


def test_an_evaluation_is_listed_with_its_accuracies(world: World) -> None:
    evaluated(world, "one", 0.42, 0.71)
    assert "42% / 71% (2 models)" in html(jobs_page())


@pytest.mark.parametrize("refusal", [Refusal(409, "of another form"), Refusal(500, "broken"), Refusal(404, "gone")])
def test_an_evaluation_that_can_not_be_read_leaves_the_list(world: World, refusal: Refusal) -> None:
    evaluated(world, "good", 0.42)
    bad = evaluated(world, "bad", 0.61)
    world.answers[f"GET /v1/jobs/{bad.id}/evaluation"] = lambda body: refusal
    for text in (html(jobs_page()), html(evaluations_page())):
        assert "42%" in text and ">bad</a>" in text and "61%" not in text


def test_an_evaluation_without_accuracies_leaves_the_list(world: World) -> None:
    evaluated(world, "empty")
    other = evaluated(world, "other", 0.42)
    answer = world.answers[f"GET /v1/jobs/{other.id}/evaluation"](None)
    del answer["results"][0]["metrics"]["accuracy"]
    world.answers[f"GET /v1/jobs/{other.id}/evaluation"] = lambda body: answer
    for text in (html(jobs_page()), html(evaluations_page())):
        assert ">empty</a>" in text and ">other</a>" in text
