"""Live streams over real HTTP and a real database: no gap and no repeat after any fault."""

import random
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import httpx
import psycopg
import pytest

from api import live as api_live
from api.routes import live as live_routes
from jobs import lifecycle, live
from jobs.db import session_scope
from jobs.live import StreamPosition
from jobs.repository import events, janitor, jobs
from tests.support.job_steps import run_count
from tests.support.rest import named, refused
from tests.support.streams import Mirror, Run, read_to, rest, stream_of, streaming

pytestmark = pytest.mark.integration


def test_a_stream_begins_with_the_job_and_continues_with_events(http: httpx.Client) -> None:
    run = Run()
    run.ship(3)
    with streaming(http, stream_of(run.id), max_seconds=30) as stream:
        event, id, job = next(stream)
        assert (event, job) == ("status", http.get(f"/v1/jobs/{run.id}").json())
        run.ship(log=b"step 4\n")
        found = read_to(stream, "status")
        kinds = [each[0] for each in found]
        assert (kinds[0], kinds[-2:]) == ("metrics", ["log", "status"])
        assert found[0][2]["job_id"] == str(run.id)
        assert [row["step"] for row in found[0][2]["data"]] == [4]
        assert found[-2][2] == {"job_id": str(run.id), "start": 0, "next": 7, "text": "step 4\n"}
        assert (found[-1][1], found[-1][2]["step"]) == (str(int(id or "") + 1), 4)
        run.finish()
        event, id, data = read_to(stream, "end")[-1]
        assert data == {"job_id": str(run.id), "status": "succeeded"}
        assert list(stream) == []  # the service has closed it


def test_the_stream_of_an_ended_job_sends_the_rest_and_ends(http: httpx.Client) -> None:
    run = Run()
    run.ship(2)
    run.finish()
    with streaming(http, stream_of(run.id)) as stream:
        assert [event for event, _, _ in stream] == ["status", "end"]
    with streaming(http, stream_of(run.id), after="0") as stream:
        kinds = [event for event, _, _ in stream]
    assert (kinds[-2:], "metrics" in kinds, "events" in kinds) == (["status", "end"], True, True)


def test_max_seconds_ends_a_stream(http: httpx.Client) -> None:
    run = Run()
    with streaming(http, stream_of(run.id), max_seconds=0.2) as stream:
        assert [event for event, _, _ in stream] == ["status"]


def test_unknown_jobs_and_invalid_positions_are_refused(http: httpx.Client) -> None:
    run = Run()
    unknown = UUID(int=7)
    refused(http.get(stream_of(unknown)), 404)
    for after in ("x", "1-2", "1.", "99999", "-1", "²"):
        assert named(http.get(stream_of(run.id), params={"after": after})) == ["after"]
    assert named(http.get(stream_of(run.id), headers={"Last-Event-ID": "x"}, params={"after": "0"})) == ["after"]
    assert named(http.get("/v1/stream", params={"after": "7"})) == ["after"]
    assert named(http.get("/v1/stream", params={"max_seconds": 0})) == ["max_seconds"]


def test_the_stream_of_all_jobs_does_not_go_back_without_limit(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_routes, "MOST_BEHIND", 3)
    for _ in range(4):
        Run()
    newest = run_count("SELECT max(id) FROM feed")
    (fault,) = refused(http.get("/v1/stream", params={"after": "0"}), 422)["errors"]
    assert fault["field"] == "after" and f"is {newest} changes old, at most 3" in fault["message"]
    for after, status in ((newest - 4, 422), (newest - 3, 200)):
        answer = http.get("/v1/stream", params={"after": f"1-{after}", "max_seconds": 0.1})
        assert answer.status_code == status


def test_a_stream_continues_after_any_frame_id(http: httpx.Client) -> None:
    """Also in the middle of a transaction's frames: each frame comes exactly once, wherever the connection broke."""
    run = Run(3)
    run.ship(250, "é".encode() * 40_000)
    run.amend()
    run.ship(3)
    run.finish()
    with streaming(http, stream_of(run.id), after="0") as stream:
        whole = list(stream)
    assert [event for event, _, _ in whole].count("metrics") == 5
    assert [event for event, _, _ in whole].count("log") == 2
    for place, (_, id, _) in enumerate(whole[:-2]):
        with streaming(http, stream_of(run.id), after=id) as stream:
            assert list(stream) == whole[place + 1 :]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_a_client_cut_off_repeatedly_has_the_same_records_as_rest(http: httpx.Client, seed: int) -> None:
    """Random shipping, going back to checkpoints and forgetting, a reader that is cut off anywhere; each step once."""
    chance = random.Random(seed)
    run = Run(seed)
    mirror, place = Mirror(), "0"
    for _ in range(25):
        for _ in range(chance.randrange(4)):
            match chance.choice(["ship", "ship", "ship", "rewind", "rewind again", "amend"]):
                case "ship":
                    text = "".join(chance.choice("aé漢😀\n") for _ in range(9)).encode()
                    run.ship(chance.choice([1, 2, 5, 130]), text[: chance.randrange(len(text))])
                case "rewind":
                    run.rewind(chance.randrange(run.step + 1))
                case "rewind again":
                    run.rewind(chance.randrange(run.step + 1), chance.randrange(5))
                case "amend" if run.step:
                    run.amend()
        with streaming(http, stream_of(run.id), after=place, max_seconds=0.15) as stream:
            for _, (event, id, data) in zip(range(chance.randrange(12)), stream, strict=False):
                mirror.apply(str(event), data)
                place = str(id)
    run.finish()
    with streaming(http, stream_of(run.id), after=place) as stream:
        for event, _, data in stream:
            mirror.apply(str(event), data)
    assert mirror.state() == rest(http, run.id)
    late = Mirror()
    with streaming(http, stream_of(run.id), after="0") as stream:
        for event, _, data in stream:
            late.apply(str(event), data)
    assert late.state() == mirror.state()


def test_writers_at_once_lose_and_repeat_nothing(http: httpx.Client) -> None:
    """Several write the job's events while a reader comes back again and again by its last id."""
    run = Run()
    each, writers = 25, 4

    def write(writer: int) -> None:
        for number in range(each):
            with session_scope() as session:
                lifecycle.fence(session, run.claim)
                events.add(session, run.id, "info", actor="w", message=f"{writer}:{number}")

    received: list[int] = []
    place = "0"
    with ThreadPoolExecutor(writers) as pool:
        done = [pool.submit(write, writer) for writer in range(writers)]
        while not all(future.done() for future in done):
            with streaming(http, stream_of(run.id), after=place, max_seconds=0.3) as stream:
                for _, (event, id, data) in zip(range(8), stream, strict=False):
                    place = str(id)
                    received += [row["id"] for row in data["data"]] if event == "events" else []
        assert [future.result() for future in done] == [None] * writers
    run.finish()
    with streaming(http, stream_of(run.id), after=place) as stream:
        received += [row["id"] for event, _, data in stream if event == "events" for row in data["data"]]
    known = [row["id"] for row in http.get(f"/v1/jobs/{run.id}/events?limit=1000").json()["data"]]
    assert len(known) > each * writers
    assert received == known


def test_readers_drop_deleted_records_too(http: httpx.Client) -> None:
    run = Run(1)
    run.ship(30, b"some text\n")
    run.finish()
    mirror = Mirror()
    with streaming(http, stream_of(run.id), after="0") as stream:
        for event, id, data in stream:
            mirror.apply(str(event), data)
            place = id
    with session_scope() as session:
        jobs.lock(session, run.id)
        assert janitor.forget(session, run.id)
        events.add(session, run.id, "forgotten", actor="janitor")
    for after, known in ((place, mirror), ("0", Mirror())):
        with streaming(http, stream_of(run.id), after=after) as stream:
            for event, _, data in stream:
                known.apply(str(event), data)
        state = known.state()
        assert state == rest(http, run.id)
        assert (state["metrics"], state["log"], state["events"][-1]["type"]) == ([], "", "forgotten")


def test_the_stream_of_all_jobs_skips_nothing_that_commits_late(http: httpx.Client, database: str) -> None:
    first, second = Run(), Run()
    with streaming(http, "/v1/stream", max_seconds=60) as stream:
        event, begin, _ = next(stream)
        assert event is None
        with psycopg.connect(database.replace("+psycopg", "")) as slow:
            slow.execute("SELECT pg_current_xact_id()")  # older than what comes now, and not yet over
            with session_scope() as session:
                lifecycle.fence(session, first.claim)
                events.add(session, first.id, "info", actor="w", message="early")
            with session_scope() as session:
                assert live.next_page(session, StreamPosition.parse(begin or "", 2)) == live.StreamPage(
                    StreamPosition.parse(begin or "", 2), held=True
                )
            slow.execute("UPDATE jobs SET feed = feed + 1 WHERE id = %s", [second.id])
            row = "INSERT INTO feed (job_id, cursor, parts) SELECT id, feed, '[]' FROM jobs WHERE id = %s"
            slow.execute(row, [second.id])
        found = [next(stream) for _ in range(3)]
    received = [(event, data.get("id") or data["job_id"]) for event, _, data in found]
    assert received == [("status", str(second.id)), ("events", str(first.id)), ("status", str(first.id))]
    last = Run()
    for place, (_, id, _) in enumerate(found):  # a reader that continues after each frame gets the rest, once
        with streaming(http, "/v1/stream", after=id, max_seconds=60) as stream:
            assert [next(stream) for _ in found[place + 1 :]] == found[place + 1 :]
            _, _, data = next(stream)
            assert (data.get("id") or data["job_id"]) == str(last.id)


def test_the_stream_of_all_jobs_shows_each_client_its_own_projects(http: httpx.Client) -> None:
    run = Run()
    with session_scope() as session:
        page = api_live.Encoded.of(live.next_page(session, StreamPosition((0, 0))))
    assert str(run.id).encode() in page.visible_to(None)
    assert page.visible_to(frozenset({"default"})) == page.visible_to(None)
    assert page.visible_to(frozenset({"other"})) == b""
