"""The queue's page: who waits and why, the machines, and what is offered to whom."""

from datetime import UTC, datetime
from uuid import uuid4

from streamlit.testing.v1 import AppTest

from calibrl.schemas import Gpu, JobStatus, Me, Role, Worker, WorkerStatus
from tests.support.waiting import LIMIT_SECONDS

from .conftest import HOSTILE, World
from .test_pages import NAVIGATION, finished, html


def queue_page() -> AppTest:
    app = AppTest.from_file(NAVIGATION, default_timeout=LIMIT_SECONDS)
    app.switch_page("app_pages/queue.py")
    return finished(app.run())


def machine(**changes: object) -> Worker:
    gpu = Gpu(
        index=0, name="H100", uuid="GPU-0", memory_total=80 * 2**30, memory_used=20 * 2**30, utilisation=40.0,
        job_id=None, clean=True,
    )  # fmt: skip
    record = {
        "name": "machine-1",
        "host": "h",
        "labels": {"gpu": "h100"},
        "versions": {},
        "status": WorkerStatus.ONLINE,
        "cpu_slots": 2,
        "gpus": [gpu],
        "jobs": [uuid4()],
        "heartbeat_at": datetime.now(UTC),
    }
    return Worker.model_validate(record | changes)


def test_waiting_and_running_jobs_are_shown(world: World) -> None:
    running = world.add(name="the running one")
    waiting = world.add(name="the waiting one", status=JobStatus.QUEUED, started_at=None)
    world.wait(waiting, position=1)
    world.workers.append(machine())
    text = html(queue_page())
    assert f'href="job?id={running.id}"' in text and f'href="job?id={waiting.id}"' in text
    assert "waiting for a free &lt;CPU&gt; slot" in text
    assert "2 CPU slots, 1 in use" in text and "gpu: h100" in text
    assert "20.0 of 80 GiB" in text and "40 %" in text


def test_names_are_inert(world: World) -> None:
    world.workers.append(machine(labels={"x": HOSTILE}))
    text = html(queue_page())
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_nothing_is_offered_to_those_who_may_only_look(world: World) -> None:
    world.wait(world.add(status=JobStatus.QUEUED, started_at=None), position=1)
    world.workers.append(machine())
    world.me = Me(user="eve", admin=False, scope="write", projects={"default": Role.VIEWER})
    assert not queue_page().selectbox


def test_members_change_classes_and_admins_drain(world: World) -> None:
    world.wait(world.add(status=JobStatus.QUEUED, started_at=None), position=1)
    world.workers.append(machine())
    assert [box.label for box in queue_page().selectbox] == ["Job", "Priority"]
    world.me = Me(user="root", admin=True, scope="write", projects={})
    from .conftest import forget

    forget()
    assert [box.label for box in queue_page().selectbox] == ["Job", "Priority", "Machine"]


def test_an_empty_queue_without_machines_is_shown(world: World) -> None:
    text = html(queue_page())
    assert "No machines yet" in text


def test_an_empty_queue_is_read_at_an_idle_pace(world: World) -> None:
    app = queue_page()
    assert app.session_state["queue-active"] is False
    world.wait(world.add(status=JobStatus.QUEUED, started_at=None), position=1)
    from .conftest import forget

    forget()
    assert finished(app.run()).session_state["queue-active"] is True
