"""The dialog that edits a job, and the next steps that a job offers."""

import pytest
from streamlit.testing.v1 import AppTest

from calibrl.schemas import Job, JobStatus
from tests.support.dashboard.pages import finished, html, job_page
from tests.support.dashboard.world import HOSTILE, World
from tests.support.waiting import LIMIT_SECONDS

pytestmark = pytest.mark.integration


def dialog(job: Job) -> AppTest:
    def script(record: str) -> None:
        from calibrl.schemas import Job
        from dashboard.forms import edit_dialog

        edit_dialog.form(Job.model_validate_json(record))

    return finished(AppTest.from_function(script, args=(job.model_dump_json(),), default_timeout=LIMIT_SECONDS).run())


def test_name_labels_and_notes_are_edited(world: World) -> None:
    job = world.add(labels={"team": "vision", "stage": "try"})
    app = dialog(job)
    app.text_input[0].set_value("better")
    app.multiselect[0].set_value(["team:audio"])
    app.text_area[0].set_value("Looks good.")
    app.button(key="edit-submit").click().run()
    changed = world.job(job.id)
    assert (changed.name, changed.labels, changed.notes) == ("better", {"team": "audio"}, "Looks good.")


@pytest.mark.parametrize(
    ("name", "labels", "fault"),
    [("ünder", [], "name: Must contain only letters"), ("fine", ["group"], "'group': write it as key=value")],
)
def test_a_fault_is_named_and_nothing_is_changed(world: World, name: str, labels: list[str], fault: str) -> None:
    job = world.add()
    app = dialog(job)
    app.text_input[0].set_value(name)
    app.multiselect[0].set_value(labels)
    app.button(key="edit-submit").click().run()
    assert fault in finished(app).text[0].value
    assert world.job(job.id).name == job.name


def test_notes_are_shown_as_plain_text(world: World) -> None:
    app = job_page(world.add(notes=HOSTILE).id, "Spec")
    assert HOSTILE in [text.value for text in app.text]


def test_a_checkpoint_links_to_its_evaluation(world: World) -> None:
    job = world.add(status=JobStatus.SUCCEEDED)
    world.keep_checkpoint(job, 40)
    assert f'href="new?evaluate={job.id}&amp;checkpoint=40"' in html(job_page(job.id, "Files"))
