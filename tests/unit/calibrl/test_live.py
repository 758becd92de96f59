"""The client's side of a stream: frames out of bytes, coming back, giving up, and doing without."""

import json
from typing import Any

import pytest

from calibrl.client import CalibrlError, Client
from calibrl.client import live as client_stream
from calibrl.client.live import _messages
from calibrl.schemas import Ended, Job, Rewound

from .conftest import JOB_ID, Service, calibrl, job, page, problem

PATH = f"/v1/jobs/{JOB_ID}/stream"


def frame(event: str, id: str, data: Any) -> bytes:
    return f"event: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\nid: {id}\n\n".encode()


def rewound(step: int, id: str) -> bytes:
    return frame("rewound", id, {"job_id": str(JOB_ID), "to_step": step})


END = frame("end", "9", {"job_id": str(JOB_ID), "status": "succeeded"})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_stream, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(client_stream, "LONGEST_WAIT", 0.001)


def test_messages_are_whole_wherever_the_stream_is_cut() -> None:
    whole = b": ping\n\n" + frame("status", "1", {"text": "a\u2028b"}) + b"id: 2\n\n" + b"event: half"
    expected = whole.split(b"\n\n")[:-1]
    for size in (1, 2, 7, len(whole)):
        pieces = (whole[start : start + size] for start in range(0, len(whole), size))
        assert list(_messages(pieces)) == expected


def test_frames_are_typed_and_unknown_ones_are_skipped(service: Service) -> None:
    newer = frame("weather", "3", {"sun": True})
    service.on("GET", PATH, b": ping\n\n" + frame("status", "1", job()) + rewound(4, "2.1") + newer + END)
    with Client() as client:
        found = list(client.stream(JOB_ID))
    assert [(live.event, live.id) for live in found] == [("status", "1"), ("rewound", "2.1"), ("end", "9")]
    assert isinstance(found[0].data, Job) and isinstance(found[2].data, Ended)
    assert found[1].data == Rewound(job_id=JOB_ID, to_step=4)


def test_it_reconnects_after_the_last_whole_frame(service: Service) -> None:
    service.on("GET", PATH, rewound(1, "1") + rewound(2, "2")[:-5], (503, {}), rewound(2, "2") + b"id: 5\n\n", END)
    with Client() as client:
        found = list(client.stream(JOB_ID, after="0"))
    assert [live.data.to_step for live in found[:-1]] == [1, 2]
    assert [request.headers["Last-Event-ID"] for request in service.requests] == ["0", "1", "1", "5"]


def test_following_ends_with_an_error_if_nothing_answers(service: Service) -> None:
    service.on("GET", PATH, (503, {}))
    with Client() as client, pytest.raises(CalibrlError, match=r"has sent nothing for 0\.05 s: .* answered 503"):
        next(client.stream(JOB_ID, patience=0.05))
    service.on("GET", PATH, b"")
    with Client() as client, pytest.raises(CalibrlError, match="the stream ended"):
        next(client.stream(JOB_ID, patience=0.05))
    with Client("http://127.0.0.1:1", "key") as client, pytest.raises(CalibrlError, match="has sent nothing"):
        next(client.stream(JOB_ID, patience=0.05))


def test_a_refusal_and_invalid_data_raise_at_once(service: Service) -> None:
    with Client() as client:
        service.on("GET", PATH, problem(422, "The stream can't go on from there."))
        with pytest.raises(CalibrlError, match="can't go on from there"):
            next(client.stream(JOB_ID, after="x"))
        service.on("GET", PATH, frame("rewound", "1", {"to_step": "no"}))
        with pytest.raises(CalibrlError, match="an invalid frame 'rewound'"):
            next(client.stream(JOB_ID))


def test_wait_returns_the_job(service: Service) -> None:
    service.on("GET", PATH, frame("status", "1", job()), frame("status", "2", job()) + END)
    service.on("GET", f"/v1/jobs/{JOB_ID}", job(status="succeeded"))
    with Client() as client:
        assert client.wait(JOB_ID, timeout=30).status == "succeeded"
    assert float(service.requests[0].query["max_seconds"]) <= 30


def test_watch_and_logs_follow_the_stream(service: Service) -> None:
    metrics = {"job_id": str(JOB_ID), "data": [{"step": 4, "ts": "2026-01-01T00:00:00Z", "values": {"a": 1}}]}
    piece = {"job_id": str(JOB_ID), "start": 2, "next": 4, "text": "b\n"}
    last = job(step=10, status="succeeded")
    course = frame("metrics", "2.1", metrics) + frame("log", "2.2", piece) + frame("status", "2", last) + END
    service.on("GET", PATH, frame("status", "1", job()), course)
    service.on("GET", f"/v1/jobs/{JOB_ID}", job())
    for kind in ("metrics", "events"):
        service.on("GET", f"/v1/jobs/{JOB_ID}/{kind}", page())
    watched = calibrl("watch", str(JOB_ID))
    assert (watched.exit_code, watched.stdout.count("\n")) == (0, 2)
    assert watched.stdout.endswith("succeeded, step 10/10\n")

    service.on("GET", PATH, frame("status", "1", job()), course)
    chunks = [{"text": "a\n", "next": 2}, {"text": "", "next": 2}, {"text": "", "next": 4}]
    service.on("GET", f"/v1/jobs/{JOB_ID}/log", *chunks)
    assert calibrl("logs", "-f", str(JOB_ID)).stdout == "a\nb\n"


def test_the_client_polls_behind_a_buffering_proxy(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_stream, "OPENING_SECONDS", 0.05)
    service.on("GET", PATH, b"")
    service.on("GET", f"/v1/jobs/{JOB_ID}", job(status="failed"))
    service.on("GET", f"/v1/jobs/{JOB_ID}/log", {"text": "boom\n", "next": 5}, {"text": "", "next": 5})
    assert calibrl("logs", "-f", str(JOB_ID)).stdout == "boom\n"
