"""Curves in buckets, against numbers worked out by hand and against plain Python; and what can be taken elsewhere."""

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from sqlalchemy.orm import Session

from calibrl.client import CalibrlError, Client
from calibrl.schemas import job_spec_adapter
from jobs import lifecycle
from jobs.db import session_scope
from jobs.errors import NotFound
from jobs.repository import curves, histograms, jobs
from tests.support import API_KEY
from tests.support.curves import at, write
from tests.support.rest import named, refused, submitted
from tests.support.waiting import LIMIT_SECONDS

pytestmark = pytest.mark.integration
NAN, INF = math.nan, math.inf
SPEC = {"kind": "train", "name": "a job", "model": {"builtin": "tiny-vlm"}, "data": {"builtin": "digits"}, "steps": 1}


def add_job() -> UUID:
    with session_scope() as session:
        return lifecycle.submit(session, job_spec_adapter.validate_python(SPEC), actor="user").id


def buckets(session: Session, job: UUID, width: int, first: int = 0, last: int = 10_000) -> list[dict[str, Any]]:
    return [
        dict(row._mapping)
        for row in curves.buckets(
            session, job, ["a"], newest=curves.last_step(session, job), width=width, first=first, last=last
        )
    ]


@pytest.fixture
def ours(http: httpx.Client) -> Iterator[Client]:
    with Client(str(http.base_url), API_KEY) as ours:
        yield ours


@pytest.mark.usefixtures("database")
def test_buckets_by_hand() -> None:
    job = add_job()
    write(job, {1: {"a": 4.0}, 2: {"a": -2.0}, 3: {"a": 1.0}, 4: {"a": 8.0, "b": 1.0}, 6: {"b": 2.0}, 7: {"a": NAN}})
    with session_scope() as session:
        got = buckets(session, job, 4)
    assert got == [
        {
            "job_id": job,
            "name": "a",
            "start": 0,
            "first_step": 1,
            "last_step": 3,
            "ts": at(3),
            "count": 3,
            "non_finite": 0,
            "min": -2.0,
            "max": 4.0,
            "mean": 1.0,
            "last": 1.0,
        },
        {
            "job_id": job,
            "name": "a",
            "start": 4,
            "first_step": 4,
            "last_step": 7,
            "ts": at(7),
            "count": 1,
            "non_finite": 1,
            "min": 8.0,
            "max": 8.0,
            "mean": 8.0,
            "last": 8.0,
        },
    ]


@pytest.mark.usefixtures("database")
def test_no_spike_is_lost_and_no_sum_overflows() -> None:
    job = add_job()
    wild = {500: 1e6, 501: -1e6, 600: NAN, 601: INF, 602: -INF, 603: 1.7e308, 604: -1e300}
    write(job, {step: {"a": wild.get(step, 1.0)} for step in range(1000)}, batch=77)
    with session_scope() as session:
        (whole,) = buckets(session, job, 1024)
        wide = buckets(session, job, 128)
    assert (whole["min"], whole["max"], whole["count"], whole["non_finite"]) == (-1e6, 1e6, 995, 5)
    assert whole["mean"] == pytest.approx(993 / 995)
    assert [(row["start"], row["max"]) for row in wide if row["max"] != 1.0] == [(384, 1e6)]
    assert [row["start"] for row in wide] == list(range(0, 1000, 128))


@pytest.mark.usefixtures("database")
def test_a_metric_that_is_never_finite() -> None:
    job = add_job()
    write(job, {step: {"a": NAN} for step in range(40)})
    with session_scope() as session:
        (row,) = buckets(session, job, 64)
        (name,) = curves.names(session, job)
    assert (row["count"], row["non_finite"]) == (0, 40)
    assert [row[each] for each in ("min", "max", "mean", "last")] == [None] * 4
    assert tuple(name) == ("a", 39, None)


@pytest.mark.usefixtures("database")
def test_late_values_are_in_their_bucket() -> None:
    job = add_job()
    write(job, {step: {"a": 1.0} for step in range(100)})
    write(job, {10: {"a": 5.0}, 99: {"b": 1.0}})
    with session_scope() as session:
        assert [row["max"] for row in buckets(session, job, 32)] == [5.0, 1.0, 1.0, 1.0]
        assert [tuple(row) for row in curves.names(session, job)] == [("a", 99, 1.0), ("b", 99, 1.0)]


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("to_step", [0, 31, 32, 63, 64, 70, 95, 99])
def test_a_job_that_rewinds(to_step: int) -> None:
    job = add_job()
    write(job, {step: {"a": float(step)} for step in range(100)})
    with session_scope() as session:
        jobs.rewind(session, job, to_step)
        assert [row["last"] for row in buckets(session, job, 128)] == [to_step]
    write(job, {step: {"a": -float(step)} for step in range(to_step + 1, 130)}, batch=5)
    expected = [float(step) if step <= to_step else -float(step) for step in range(130)]
    with session_scope() as session:
        found = {row["start"]: (row["min"], row["max"], row["count"]) for row in buckets(session, job, 32)}
    parts = {start: expected[start : start + 32] for start in range(0, 130, 32)}
    assert found == {start: (min(part), max(part), len(part)) for start, part in parts.items()}


number = st.floats(-1e6, 1e6) | st.sampled_from([NAN, INF, -INF, 0.0])


@pytest.mark.usefixtures("database")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.integers(0, 400), number, max_size=120),
    st.integers(0, 9),
    st.integers(1, 50),
    st.tuples(st.integers(0, 450), st.integers(0, 450)).map(sorted),
)
@example({0: 5e-324, 1: 0.0}, 1, 1, [0, 1])  # the smallest number divided by 2
def test_buckets_are_those_of_plain_python(values: dict[int, float], power: int, batch: int, bounds: list[int]) -> None:
    width, (first, last) = 2**power, bounds
    job = add_job()
    write(job, {step: {"a": value} for step, value in sorted(values.items())}, batch)
    expected = []
    for start in range(first // width * width, last + 1, width):
        steps = sorted(step for step in values if start <= step < start + width)
        finite = [values[step] for step in steps if math.isfinite(values[step])]
        if steps:
            whole = (min(finite), max(finite), finite[-1]) if finite else (None, None, None)
            key = (start, steps[0], steps[-1], at(steps[-1]), len(finite), len(steps) - len(finite))
            expected.append((*key, *whole, pytest.approx(sum(finite) / len(finite), abs=1e-6) if finite else None))
    with session_scope() as session:
        got = buckets(session, job, width, first, last)
    order = ("start", "first_step", "last_step", "ts", "count", "non_finite", "min", "max", "last", "mean")
    assert [tuple(row[name] for name in order) for row in got] == expected


def test_the_width_doubles_and_otherwise_buckets_stay(http: httpx.Client) -> None:
    job = submitted(http)["id"]
    query = {"jobs": job, "names": "a", "points": 4}
    write(UUID(job), {step: {"a": float(step)} for step in range(8)})
    first = http.get("/v1/metrics", params=query).json()
    assert (first["width"], first["last_step"]) == (2, 7)
    (series,) = first["series"]
    assert (series["start"], series["max"], series["mean"]) == ([0, 2, 4, 6], [1, 3, 5, 7], [0.5, 2.5, 4.5, 6.5])
    write(UUID(job), {8: {"a": 8.0}})
    second = http.get("/v1/metrics", params=query).json()
    assert (second["width"], second["series"][0]["start"]) == (4, [0, 4, 8])
    new = http.get("/v1/metrics", params={**query, "from_step": 6, "width": 2}).json()
    assert (new["width"], new["last_step"], new["series"][0]["start"]) == (2, 8, [6, 8])
    assert new["last_step"] // new["width"] >= 4  # the client must therefore read all values again
    cut = http.get("/v1/metrics", params={**query, "from_step": 3, "to_step": 5, "width": 4}).json()
    assert cut["series"][0]["count"] == [4, 4]  # buckets are whole for any range
    assert http.get("/v1/metrics", params={**query, "names": "none"}).json()["series"] == []


def test_several_jobs_and_families(http: httpx.Client, ours: Client) -> None:
    ids = [UUID(submitted(http)["id"]) for _ in range(2)]
    write(ids[0], {step: {"reward/mean": 1.0, "reward/std": 2.0, "loss/total": 3.0} for step in range(40)})
    write(ids[1], {step: {"reward/mean": 5.0} for step in range(3)})
    found = ours.series(ids, ["reward/*", "loss/total"], points=10)
    assert (found.width, found.last_step) == (4, 39)
    assert {(each.job_id, each.name): (each.start[-1], each.last[-1]) for each in found.series} == {
        (ids[0], "reward/mean"): (36, 1.0),
        (ids[0], "reward/std"): (36, 2.0),
        (ids[0], "loss/total"): (36, 3.0),
        (ids[1], "reward/mean"): (0, 5.0),
    }
    assert [(each.name, each.last_step, each.last) for each in ours.metric_names(ids[0])] == [
        ("loss/total", 39, 3.0),
        ("reward/mean", 39, 1.0),
        ("reward/std", 39, 2.0),
    ]
    other = uuid4()
    problem = refused(http.get("/v1/metrics", params={"jobs": f"{ids[0]},{other}", "names": "a"}), 404)
    assert str(other) in problem["detail"]


def test_jobs_of_other_projects_are_not_found(http: httpx.Client) -> None:
    id = UUID(submitted(http)["id"])
    with session_scope() as session:
        assert jobs.require_visible(session, [id], frozenset({"default"})) == [id]
        with pytest.raises(NotFound, match=str(id)):
            jobs.require_visible(session, [id], frozenset({"other"}))


@pytest.mark.parametrize(
    ("field", "query"),
    [
        ("jobs", {"jobs": "x"}),
        ("jobs", {"jobs": ","}),
        ("jobs", {"jobs": ",".join(str(uuid4()) for _ in range(33))}),
        ("names", {"names": ""}),
        ("names", {"names": ",".join(map(str, range(65)))}),
        ("points", {"points": 0}),
        ("points", {"points": 5001}),
        ("points", {"points": 5000, "names": ",".join(map(str, range(64)))}),
        ("width", {"width": 3}),
        ("width", {"width": 1}),
        ("to_step", {"from_step": 5, "to_step": 4}),
        ("from_step", {"from_step": -1}),
        ("format", {"format": "xml"}),
    ],
)
def test_limits_name_the_field(http: httpx.Client, field: str, query: dict[str, Any]) -> None:
    job = submitted(http)["id"]
    good = {"jobs": job, "names": "a", "to_step": 1_000_000}
    assert named(http.get("/v1/metrics", params={**good, **query})) == [field]


HOSTILE = {"=1+2": 1.0, "@sum(a)": -0.5, 'a"b,c\n': 2.0, "-x": NAN, "ts": 7.0, "late": 0.0}


def hostile_job(http: httpx.Client) -> str:
    job: str = submitted(http)["id"]
    rows = {step: {name: value for name, value in HOSTILE.items() if name != "late"} for step in range(50)}
    write(UUID(job), {**rows, 50: {"late": INF}})
    return job


def test_rows_as_csv_are_whole_and_inert(http: httpx.Client) -> None:
    job = hostile_job(http)
    answer = http.get(f"/v1/jobs/{job}/metrics", headers={"Accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="{job}-metrics.csv"'
    rows = list(csv.reader(io.StringIO(answer.text, newline="")))
    assert rows[0] == ["step", "ts", "'-x", "'=1+2", "'@sum(a)", 'a"b,c\n', "late", "metric/ts"]
    assert rows[1] == ["0", "2026-01-02T03:04:05+00:00", "NaN", "1.0", "-0.5", "2.0", "", "7.0"]
    assert rows[51][-2:] == ["Infinity", ""]
    assert len(rows) == 52
    some = http.get(f"/v1/jobs/{job}/metrics", params={"format": "csv", "names": "late", "after_step": 3}).text
    assert some == "step,ts,late\r\n50,2026-01-02T03:04:55+00:00,Infinity\r\n"
    empty = http.get(f"/v1/jobs/{submitted(http)['id']}/metrics", params={"format": "csv"})
    assert empty.text == "step,ts\r\n"


def test_rows_as_parquet(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.metric_pages.PAGE", 20)  # three pages
    job = hostile_job(http)
    answer = http.get(f"/v1/jobs/{job}/metrics", params={"format": "parquet"})
    table = parquet.read_table(io.BytesIO(answer.content))
    assert table.column_names == ["step", "ts", "-x", "=1+2", "@sum(a)", 'a"b,c\n', "late", "metric/ts"]
    assert table["step"].to_pylist() == list(range(51))
    assert table["ts"].to_pylist()[50] == at(50)
    assert table["late"].to_pylist()[49:] == [None, INF]
    assert math.isnan(table["-x"].to_pylist()[0])
    empty = http.get(f"/v1/jobs/{submitted(http)['id']}/metrics", params={"format": "parquet"})
    assert parquet.read_table(io.BytesIO(empty.content)).num_rows == 0


def test_buckets_as_csv_and_parquet(http: httpx.Client) -> None:
    job = hostile_job(http)
    query: dict[str, Any] = {"jobs": job, "names": "=1+2,-x", "points": 1}
    text = http.get("/v1/metrics", params={**query, "format": "csv"}).text
    assert list(csv.reader(io.StringIO(text, newline="")))[1:] == [
        [job, "'-x", "0", "0", "49", at(49).isoformat(), "0", "50", "", "", "", ""],
        [job, "'=1+2", "0", "0", "49", at(49).isoformat(), "50", "0", "1.0", "1.0", "1.0", "1.0"],
    ]
    media = {"Accept": "application/vnd.apache.parquet"}
    table = parquet.read_table(io.BytesIO(http.get("/v1/metrics", params=query, headers=media).content))
    assert (table["name"].to_pylist(), table["mean"].to_pylist()) == (["-x", "=1+2"], [None, 1.0])


def test_names_with_commas_and_stars_can_be_read(http: httpx.Client, ours: Client) -> None:
    names = ["a/b,c", "50%2C", "all*", "all/x"]
    job = UUID(submitted(http)["id"])
    write(job, {1: {name: float(index) for index, name in enumerate(names)}})
    assert ours.metrics(job, names=names).data[0].values == {name: index for index, name in enumerate(names)}
    assert [each.name for each in ours.series(job, ["a/b,c", "50%2C"]).series] == ["50%2C", "a/b,c"]
    assert [each.name for each in ours.series(job, "all%2A").series] == ["all*"]
    assert [each.name for each in ours.series(job, ["all*"]).series] == ["all*", "all/x"]


def test_histograms_within_a_budget(http: httpx.Client) -> None:
    job = submitted(http)["id"]
    edges = [0.0, 0.5, 1.0]
    with session_scope() as session:
        rows = [(step, "h", edges, [step, 1]) for step in range(1, 10)]
        histograms.upsert(
            session, UUID(job), [*rows, (5, "h", [0.0, 2.0, 4.0], [100, 100]), (3, "other", edges, [9, 9])]
        )
    query: dict[str, str | int] = {"name": "h", "points": 3}
    found = http.get(f"/v1/jobs/{job}/histograms", params=query).json()
    shared = {"name": "h", "edges": edges, "width": 4}
    assert found == {
        "data": [
            {"step": 0, "counts": [6, 3], "merged": 3, "left_out": 0, **shared},
            {"step": 4, "counts": [17, 3], "merged": 3, "left_out": 1, **shared},
            {"step": 8, "counts": [17, 2], "merged": 2, "left_out": 0, **shared},
        ],
        "has_more": False,
    }
    late = http.get(f"/v1/jobs/{job}/histograms", params={**query, "after_step": 7, "width": 4}).json()
    assert late["data"] == found["data"][2:]
    assert named(http.get(f"/v1/jobs/{job}/histograms", params={**query, "width": 6})) == ["width"]
    assert http.get(f"/v1/jobs/{job}/histograms", params={**query, "name": "none"}).json()["data"] == []


def test_tensorboard_reads_the_event_file(http: httpx.Client, ours: Client, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    job = submitted(http)["id"]
    write(UUID(job), {step: {"reward/mean": step / 8, "näme": NAN, "huge": 1e300} for step in range(300)})
    path = ours.export(job, "tensorboard", tmp_path / "events.out.tfevents.1.test")
    events = accumulator.EventAccumulator(str(tmp_path), size_guidance={accumulator.SCALARS: 0})
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["huge", "näme", "reward/mean"]
    assert [(each.step, each.value) for each in events.Scalars("reward/mean")] == [(n, n / 8) for n in range(300)]
    assert events.Scalars("reward/mean")[7].wall_time == at(7).timestamp()
    assert math.isnan(events.Scalars("näme")[0].value)
    assert events.Scalars("huge")[0].value == INF
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_job_object_uses_its_client(http: httpx.Client, ours: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibrl.client.metrics.PAGE", 2)
    job = ours.job(submitted(http)["id"])
    write(job.id, {1: {"a": 1.0}, 2: {"a": 2.0, "b": NAN}, 5: {"a": INF}})
    frame = job.metrics().to_pandas()
    assert list(frame.columns) == ["ts", "a", "b"]
    assert (frame.index.name, list(frame.index), list(frame["a"])) == ("step", [1, 2, 5], [1.0, 2.0, INF])
    assert frame["ts"].iloc[2] == at(5)
    assert frame["b"].isna().all()
    assert [row.values for row in job.metrics(["b"]).rows] == [{"b": "NaN"}]
    assert ours.job(ours.jobs().data[0].id).metrics().to_pandas().shape == (3, 3)
    empty = ours.submit(job.spec).metrics().to_pandas()
    assert (list(empty.columns), len(empty)) == (["ts"], 0)
    with pytest.raises(CalibrlError, match="has not ended within 0 s"):
        job.wait(timeout=0)
    assert job.cancel() is job
    assert job.wait(timeout=LIMIT_SECONDS).status == "cancelled"
    assert job.model_dump(mode="json") == ours.job(job.id).model_dump(mode="json")
