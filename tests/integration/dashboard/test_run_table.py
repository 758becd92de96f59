"""The table of runs on the jobs page: its columns, groups and filter, and the actions on selected rows."""

import pytest
from streamlit.testing.v1 import AppTest

from calibrl.schemas import Job, JobStatus, JobSummary, Role
from tests.support.dashboard.pages import finished, forget_reads, html, open_page, paths, press
from tests.support.dashboard.world import World
from tests.support.waiting import LIMIT_SECONDS

pytestmark = pytest.mark.integration
ACCURACY = "validation/accuracy"


def table_page(**query: str) -> AppTest:
    return open_page("jobs", **{"list-view": "Table"}, **query)


@pytest.fixture
def two_runs(world: World) -> tuple[Job, Job]:
    """Accuracy 0.2, 0.6, 0.4 of the first and 0.5 of the second; learning rates 1e-4 and 1e-5."""
    first = world.add(name="one", spec={"optimizer": {"lr": 1e-4}, "seed": 3}, labels={"team": "vision"})
    second = world.add(name="two", spec={"optimizer": {"lr": 1e-5}}, status=JobStatus.SUCCEEDED)
    for step, value in ((1, 0.2), (2, 0.6), (3, 0.4)):
        world.measure(first, range(step, step + 1), {ACCURACY: value, "loss/grad_norm": 3.0 - step})
    world.measure(second, range(1, 2), {ACCURACY: 0.5})
    return first, second


def test_the_table_has_fields_of_the_spec_and_last_and_best_values(world: World, two_runs: tuple[Job, Job]) -> None:
    frame = table_page().dataframe[0].value
    assert list(frame["Name"]) == [f"job?id={job.id}#{job.name}" for job in reversed(two_runs)]
    assert list(frame["optimizer.lr"]) == [1e-5, 1e-4] and list(frame["seed"]) == [0, 3]
    assert list(frame[ACCURACY]) == [0.5, 0.4] and list(frame[f"{ACCURACY} (best)"]) == [0.5, 0.6]
    assert list(frame["Labels"]) == ["", "team:vision"]
    assert len([request for request in world.requests if request.startswith("/v1/jobs?")]) == 1


def test_columns_are_chosen(world: World, two_runs: tuple[Job, Job]) -> None:
    app = table_page()
    app.multiselect(key="run-fields").set_value(["algorithm.type"])
    app.multiselect(key="run-metrics").set_value(["loss/grad_norm"])
    frame = finished(app.run()).dataframe[0].value
    assert "seed" not in frame and list(frame["algorithm.type"]) == ["calibrl", "calibrl"]
    assert frame["loss/grad_norm"][1] == 0.0 and ACCURACY not in frame


def test_a_family_of_metrics_is_no_column(world: World, two_runs: tuple[Job, Job]) -> None:
    app = table_page()
    app.multiselect(key="run-metrics").set_value(["validation/*", "loss/grad_norm"])
    app = finished(app.run())
    assert app.error[0].value.startswith("A column has one metric")
    assert "loss/grad_norm" in app.dataframe[0].value and "validation/*" not in app.dataframe[0].value


def test_rows_are_filtered_by_a_regular_expression(world: World, two_runs: tuple[Job, Job]) -> None:
    app = table_page()
    app.text_input(key="run-filter").set_value("no-such").run()
    assert "No jobs match" in html(finished(app))
    app.text_input(key="run-filter").set_value("^seed:[37]$|no-such").run()
    assert list(finished(app).dataframe[0].value["ID"]) == [str(two_runs[0].id)[:8]]
    app.text_input(key="run-filter").set_value("(").run()
    assert "Invalid regular expression" in finished(app).error[0].value
    assert len(app.dataframe[0].value) == 2


def test_groups_have_the_mean_and_the_range(world: World, two_runs: tuple[Job, Job]) -> None:
    """Last accuracies 0.4 and 0.5: their mean is 0.45."""
    app = table_page()
    app.selectbox(key="run-group").set_value("algorithm.type").run()
    assert f'<td data-label="{ACCURACY}">0.45 (0.4 to 0.5)</td>' in html(finished(app))
    app.selectbox(key="run-group").set_value("label team").run()
    assert "<b>vision</b>" in html(finished(app)) and "<b>–</b>" in html(app)


def test_rows_are_read_again_at_the_readers_wish(world: World, two_runs: tuple[Job, Job]) -> None:
    app = table_page()
    world.add(name="three")
    forget_reads()
    world.requests.clear()
    assert len(finished(app.run()).dataframe[0].value) == 2  # a selection stays with its rows
    assert not paths(world.requests) & {"jobs", "metrics"}
    assert len(press(app, "Refresh").dataframe[0].value) == 3


def selected(*jobs: Job) -> AppTest:
    """The actions on these jobs."""

    def script(records: list[str]) -> None:
        from calibrl.schemas import JobSummary
        from dashboard.views import run_table

        run_table.actions([JobSummary.model_validate_json(record) for record in records])

    records = [JobSummary.model_validate(job.model_dump()).model_dump_json() for job in jobs]
    return finished(AppTest.from_function(script, args=(records,), default_timeout=LIMIT_SECONDS).run())


def test_selected_jobs_are_cancelled_and_labelled(world: World) -> None:
    jobs = [world.add(labels={"team": "vision"}), world.add(kind="evaluate", status=JobStatus.SUCCEEDED)]
    app = selected(*jobs)
    app.text_input(key="runs-label").set_value("stage: final").run()
    press(app, "Set label")
    assert [world.job(job.id).labels for job in jobs] == [
        {"team": "vision", "stage": "final"},
        {"stage": "final"},
    ]
    press(app, "Cancel these jobs")
    assert [world.job(job.id).status for job in jobs] == [JobStatus.CANCELLING, JobStatus.SUCCEEDED]


def test_viewers_get_no_actions_that_change_jobs(world: World) -> None:
    job = world.add()
    world.sign_in("eve", {"default": Role.VIEWER})
    assert not selected(job).button
