"""The queue's page: who waits and why, the machines, and what is offered to whom."""

import pytest
from streamlit.testing.v1 import AppTest

from calibrl.schemas import JobStatus, Role
from dashboard.reads import service
from tests.support.dashboard.pages import finished, html, open_page, press
from tests.support.dashboard.world import HOSTILE, World

pytestmark = pytest.mark.integration


def queue_page() -> AppTest:
    return open_page("queue")


def test_waiting_and_running_jobs_are_shown(world: World) -> None:
    running = world.add(name="the running one")
    world.hold(running, world.machine(cpu_slots=1))
    waiting = world.add(name="the waiting one", status=JobStatus.QUEUED)
    unfit = world.add(status=JobStatus.QUEUED, spec={"resources": {"labels": {"gpu": "<b>"}}})
    text = html(queue_page())
    assert all(f'href="job?id={job.id}"' in text for job in (running, waiting, unfit))
    assert "waiting for a free CPU slot" in text
    assert "no online machine labelled gpu=&lt;b&gt; has a CPU slot" in text
    assert "1 CPU slot, 1 in use" in text and "gpu: h100" in text
    assert "20.0 of 80 GiB" in text and "40 %" in text


def test_a_job_on_several_machines_shows_their_number(world: World) -> None:
    running = world.add()
    for name in ("machine-1", "machine-2"):
        world.hold(running, world.machine(name), gpus=1)
    assert "2 × 1 GPU" in html(queue_page())


def test_names_are_inert(world: World) -> None:
    world.machine(labels={"x": HOSTILE})
    text = html(queue_page())
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_viewers_are_offered_no_queue_actions(world: World) -> None:
    job = world.add(status=JobStatus.QUEUED)
    machine = world.machine()
    world.sign_in("eve", {"default": Role.VIEWER})
    for query in ({}, {"manage": str(job.id)}, {"machine": machine}):
        app = open_page("queue", **query)
        assert ">Manage</a>" not in html(app) and not app.button


def test_members_manage_a_job_from_its_row(world: World) -> None:
    job = world.add(status=JobStatus.QUEUED)
    world.machine()
    assert f'href="queue?manage={job.id}"' in html(queue_page())
    assert "queue?machine" not in html(queue_page())  # for admins only
    app = open_page("queue", manage=str(job.id))
    app.selectbox(key="priority").set_value("high").run()
    press(app, "Change priority")
    assert world.job(job.id).priority == "high"
    press(app, "Pause")
    assert world.job(job.id).status is JobStatus.PAUSED
    press(app, "Resume")
    press(app, "Cancel job")
    assert world.job(job.id).status is JobStatus.CANCELLED
    assert "The job has ended." in [caption.value for caption in app.caption]


def test_admins_drain_a_machine_from_its_card(world: World) -> None:
    machine = world.machine()
    world.hold(world.add(), machine)
    world.sign_in("root", {"default": Role.MEMBER}, admin=True)
    assert f'href="queue?machine={machine}"' in html(queue_page())
    app = open_page("queue", machine=machine)
    assert "1 job runs on it" in app.markdown[0].value
    press(app, "Drain")
    assert "draining" in html(app)
    press(app, "Undrain")
    assert "online" in html(app)


def test_an_empty_queue_without_machines_is_shown(world: World) -> None:
    text = html(queue_page())
    assert "No machines yet" in text


def test_an_empty_queue_is_read_at_an_idle_pace(world: World) -> None:
    app = queue_page()
    assert app.session_state["queue-active"] is False
    world.add(status=JobStatus.QUEUED)
    service.clear_job_caches()
    assert finished(app.run()).session_state["queue-active"] is True


def test_jobs_of_other_projects_are_counted(world: World) -> None:
    """Foreign: one job runs, and one waits before the viewer's own."""
    world.sign_in("eve", {"vision": Role.MEMBER})
    world.sign_in("ann2", {"default": Role.MEMBER})
    world.hold(world.add(project="vision"), world.machine(cpu_slots=1))
    world.add(project="vision", priority="high", status=JobStatus.QUEUED)
    world.add(status=JobStatus.QUEUED)
    captions = [each.value for each in queue_page().caption]
    assert "1 running job in projects that you cannot see" in captions and "No running jobs" not in captions
    assert "1 job between these positions, in projects that you cannot see" in captions


def test_a_draining_machine_is_named_above_the_waiting_jobs(world: World) -> None:
    name = world.machine("vm")
    world.add(status=JobStatus.QUEUED)
    world.drain(name)
    assert "Draining machines, which start no new job: vm" in [each.value for each in queue_page().caption]
