"""The Python client and the commands on live streams, over real HTTP."""

import threading
from uuid import UUID

import pytest

from calibrl.client import CalibrlError, Client, Live
from calibrl.commands import follow_job
from calibrl.schemas import Ended, Job, JobStatus, LogPiece, RecordBatch, Rewound
from tests.support.streams import Run
from tests.support.waiting import LIMIT_SECONDS

pytestmark = pytest.mark.integration


def test_the_client_reconnects_at_its_last_position(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection ends after 0.2 s; each step arrives once, in order, and `wait` ends with the job."""
    monkeypatch.setattr("calibrl.client.live.LONGEST_STREAM", 0.2)
    run = Run()
    waiting: list[Job] = []
    waiter = threading.Thread(target=lambda: waiting.append(client.wait(run.id)))
    waiter.start()
    received: list[Live] = []
    for live_ in client.stream(run.id, after="0"):
        received.append(live_)
        if live_.event == "status" and run.step < 12:
            run.ship(log=b"line\n")
        elif live_.event == "status" and run.step == 12 and not live_.data.status.final:
            run.rewind(8)
            run.ship(4)
            run.step = 13
            run.finish()
    waiter.join(LIMIT_SECONDS)
    assert waiting[0].status is JobStatus.SUCCEEDED
    steps = [row.step for each in received if each.event == "metrics" for row in each.data.data]
    assert steps == [*range(1, 13), 9, 10, 11, 12]
    assert [each.data.to_step for each in received if isinstance(each.data, Rewound)] == [8]
    assert "".join(each.data.text for each in received if isinstance(each.data, LogPiece)) == "line\n" * 12
    assert isinstance(received[-1].data, Ended)
    assert all(isinstance(each.data, RecordBatch) for each in received if each.event == "checkpoints")


def test_waiting_has_a_limit(client: Client) -> None:
    run = Run()
    with pytest.raises(CalibrlError, match=r"has not ended within 0\.3 s"):
        client.wait(run.id, timeout=0.3)
    with pytest.raises(CalibrlError, match="Not found"):
        client.wait(UUID(int=1))


def test_the_stream_of_all_jobs_through_the_client(client: Client) -> None:
    heard = client.stream_all(after="0")
    run = Run()
    found = next(each for each in heard if each.event == "status" and each.data.status is JobStatus.RUNNING)
    assert found.data.id == run.id


def test_watching_and_reading_the_log_by_stream(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(follow_job, "_follow_by_polling")  # it does not fall back
    run = Run()
    run.ship(5, "wé".encode()[:2])
    course = follow_job.follow(client, run.id)
    text = follow_job.LogReader(client, run.id).follow()
    job, rows, happened = next(course)
    assert (job.step, sorted(rows)) == (5, [1, 2, 3, 4, 5])
    assert [event.type for event in happened][:2] == ["submitted", "claimed"]
    assert next(text) == "w"
    run.rewind(3)
    run.ship(1, "é".encode()[1:] + b" and on\n")
    run.finish()
    *_, (job, rows, _) = course
    assert (job.status, sorted(rows)) == (JobStatus.SUCCEEDED, [1, 2, 3, 4])
    assert "".join(text) == "é and on\n"
