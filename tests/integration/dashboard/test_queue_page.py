"""The queue's page: who waits and why, the machines, and what is offered to whom."""

import pytest
from streamlit.testing.v1 import AppTest

from calibrl.schemas import JobStatus, Role
from dashboard.reads import service
from tests.support.dashboard.pages import finished, html, open_page
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
    world.add(status=JobStatus.QUEUED)
    world.machine()
    world.sign_in("eve", {"default": Role.VIEWER})
    assert not queue_page().selectbox


def test_members_change_classes_and_admins_drain(world: World) -> None:
    world.add(status=JobStatus.QUEUED)
    world.machine()
    assert [box.label for box in queue_page().selectbox] == ["Job", "Priority"]
    world.sign_in("root", {"default": Role.MEMBER}, admin=True)
    assert [box.label for box in queue_page().selectbox] == ["Job", "Priority", "Machine"]


def test_an_empty_queue_without_machines_is_shown(world: World) -> None:
    text = html(queue_page())
    assert "No machines yet" in text


def test_an_empty_queue_is_read_at_an_idle_pace(world: World) -> None:
    app = queue_page()
    assert app.session_state["queue-active"] is False
    world.add(status=JobStatus.QUEUED)
    service.clear_job_caches()
    assert finished(app.run()).session_state["queue-active"] is True
