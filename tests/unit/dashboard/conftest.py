"""A service made by hand: the API's answers over real HTTP, from records that a test puts together."""

import hashlib
import io
import json
import math
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import pytest
from PIL import Image

from calibrl.schemas import (
    Checkpoint,
    Curves,
    Dataset,
    Event,
    Histogram,
    Job,
    JobStatus,
    Me,
    MetricRow,
    Project,
    QueueEntry,
    Role,
    Sample,
    Series,
    WaitReason,
    Worker,
)

CLIP = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 3.0}
KEY = "a-key-for-tests"
BEGAN = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
AFTER = {
    "cancel": JobStatus.CANCELLING,
    "pause": JobStatus.PAUSING,
    "resume": JobStatus.QUEUED,
    "retry": JobStatus.QUEUED,
}
HOSTILE = (
    "<script>window.pwned = 1</script>"
    '<img src="x" onerror="window.pwned = 2">'
    "**bold** [link](javascript:window.pwned=3) $x^2$ :smile: `code` & &lt;b&gt;"
)


@dataclass(frozen=True)
class Refusal:
    """A problem document in place of an answer."""

    status: int
    detail: str
    errors: tuple[dict[str, str], ...] = ()

    def document(self) -> dict[str, Any]:
        title = HTTPStatus(self.status).phrase
        return {"title": title, "status": self.status, "detail": self.detail, "errors": self.errors}


@dataclass
class World:
    """Holds all data of the fake service and every request that it got.

    `answers`: answers to other requests, such as "POST /v1/jobs:plan", from their body (bytes if it is not JSON): JSON,
    bytes or a `Refusal`.
    """

    jobs: dict[UUID, Job] = field(default_factory=dict)
    metrics: dict[UUID, list[MetricRow]] = field(default_factory=dict)
    histograms: dict[UUID, list[Histogram]] = field(default_factory=dict)
    samples: dict[UUID, list[Sample]] = field(default_factory=dict)
    events: dict[UUID, list[Event]] = field(default_factory=dict)
    checkpoints: dict[UUID, list[Checkpoint]] = field(default_factory=dict)
    logs: dict[UUID, bytes] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)
    queue: list[QueueEntry] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    datasets: list[Dataset] = field(default_factory=list)
    me: Me = field(
        default_factory=lambda: Me(user="ann", admin=False, scope="write", projects={"default": Role.MEMBER})
    )
    answers: dict[str, Callable[[Any], Any]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    fails: bool = False  # every request from now on
    keys: set[str] = field(default_factory=lambda: {KEY})  # that are good
    url: str = ""

    def add(self, **changes: Any) -> Job:
        """A job: a running CalibRL one but for what is given."""
        record = {
            "id": uuid4(),
            "name": "digits-calibrl",
            "kind": "train",
            "project": "default",
            "user": "user",
            "priority": "normal",
            "labels": {},
            "gpus": 0,
            "status": JobStatus.RUNNING,
            "reason": None,
            "message": None,
            "step": 0,
            "steps_total": 280,
            "attempt": 1,
            "depends_on": [],
            "created_at": BEGAN,
            "started_at": BEGAN + timedelta(seconds=3),
            "finished_at": None,
            "spec": {"kind": "train", "algorithm": {"type": "calibrl", "negative_slope": 0.5} | CLIP},
            "result": None,
        } | changes
        job = Job(**record)
        self.jobs[job.id] = job
        return job

    def wait(self, job: Job, **changes: Any) -> None:
        """Put a job in line: the second, because all suitable slots are occupied."""
        record = {
            "job_id": job.id,
            "position": 2,
            "reason": WaitReason.BUSY,
            "explanation": "waiting for a free <CPU> slot",
            "estimated_start": None,
            "queued_at": job.created_at,
        } | changes
        self.queue.append(QueueEntry(**record, **job.model_dump(include={*QueueEntry.model_fields} - {*record})))

    def change(self, job: Job, **changes: Any) -> None:
        self.jobs[job.id] = self.jobs[job.id].model_copy(update=changes)

    def measure(self, job: Job, steps: range, values: dict[str, float | str] | None = None) -> None:
        """Metrics and histograms at these steps: made up, or everywhere the given values."""
        for step in steps:
            row = MetricRow(step=step, ts=BEGAN + timedelta(seconds=step), values=values or made_up(step))
            self.metrics.setdefault(job.id, []).append(row)
            self.histograms.setdefault(job.id, []).extend(made_up_histograms(step))
        self.change(job, step=steps[-1])

    def fork(self, job: Job, asked: dict[str, Any]) -> dict[str, Any]:
        """The new job, or the refusal of steps that are none."""
        if asked["changes"].get("steps") == 0:
            fault = {"field": "steps", "message": "<b>at least 1</b>"}
            return {"title": "1 field can't be accepted.", "status": 422, "errors": [fault]}
        new = self.add(name=asked["name"], status=JobStatus.QUEUED, forked_from=job.id, forked_step=50)
        return new.model_dump(mode="json")

    def keep_sample(self, job: Job, step: int, *texts: str, expert: str = "3 plus 4 makes 7.") -> Sample:
        """A sampled group with these completions; the first one passed."""
        kept = self.samples.setdefault(job.id, [])
        png = picture()
        sha256 = hashlib.sha256(png).hexdigest()
        self.images[sha256] = png
        group = {
            "prompt_id": "train-17",
            "prompt": "What is the sum of the two digits?",
            "answer": "7",
            "images": [sha256],
            "expert": expert,
            "completions": [completion(text, passed=index == 0) for index, text in enumerate(texts)],
        }
        sample = Sample(
            id=sum(map(len, self.samples.values())) + 1,
            step=step,
            prompt_id="train-17",
            mean_reward=0.3,
            entropy=0.1 * len(kept) + 0.2,
            rareness=0.5,
            gap=2.0 + step,
            passed=1,
            size=len(texts),
            group=group,
        )
        kept.append(sample)
        return sample


SHARES = (  # metrics that may as well be everywhere the same
    "exploration/groups_none",
    "exploration/groups_some",
    "exploration/groups_all",
    "exploration/pass_at_k",
    "exploration/distinct_answers",
    "exploration/common_wrong_share",
    "exploration/solved_then_lost",
    "exploration/logprob_advantage_cov",
    "expert/damped_share",
    "expert/opposing_share",
    "expert/probe_nll",
    "expert/probe_gap",
    "loss/policy_grad_norm",
    "loss/guidance_grad_norm",
    "loss/guidance_cosine",
    "loss/guidance_opposing_share",
    "ratio/mean",
    "ratio/max",
    "ratio/ess",
    "kl/approx",
    "length/max",
)


def made_up(step: int) -> dict[str, float | str]:
    """Metrics that look like a healthy job's."""
    noise = random.Random(step)
    learned = 1 - math.exp(-step / 90)
    accuracy = 0.42 + 0.3 * learned + noise.gauss(0, 0.05)
    over, under = 0.3 - 0.15 * learned, 0.12
    values: dict[str, float | str] = {
        "reward/mean": accuracy + 0.1,
        "reward/std": 0.4,
        "reward/answer_accuracy": min(accuracy, 1),
        "reward/strict_accuracy": min(max(accuracy - 0.04, 0), 1),
        "exploration/entropy": 0.7 - 0.35 * learned + noise.gauss(0, 0.02),
        "exploration/active_groups": 0.8 - 0.2 * learned + noise.gauss(0, 0.06),
        "rareness/mean": 0.4 - 0.1 * learned + noise.gauss(0, 0.02),
        "rareness/correct": 0.5 - 0.2 * learned + noise.gauss(0, 0.03),
        "rareness/wrong": 0.35 + 0.1 * learned + noise.gauss(0, 0.03),
        "expert/gap_mean": 4 + learned + noise.gauss(0, 0.3),
        "expert/gap_correct": 4.5 + 1.5 * learned + noise.gauss(0, 0.4),
        "expert/gap_wrong": 3.6 - learned + noise.gauss(0, 0.4),
        "expert/quadrant_underconfident_correct": under,
        "expert/quadrant_confident_correct": 1 - under - over - 0.1,
        "expert/quadrant_humble_wrong": 0.1,
        "expert/quadrant_overconfident_wrong": over,
        "expert/nll": 5 - learned + noise.gauss(0, 0.1),
        "loss/policy": noise.gauss(0, 0.02),
        "loss/guidance": 0.3 - 0.1 * learned + noise.gauss(0, 0.02),
        "loss/total": 0.03 + noise.gauss(0, 0.02),
        "loss/grad_norm": "NaN" if step == 40 else abs(noise.gauss(0.6, 0.2)),
        "length/mean": 26 + noise.gauss(0, 1),
        "length/truncated_share": 0.02,
        "clip/low_share": 0.01 + noise.random() / 100,
        "clip/high_share": 0.02 + noise.random() / 100,
        "clip/dual_share": 0.0,
        "perf/step_seconds": 0.4,
        "perf/rollout_seconds": 0.2,
        "perf/update_seconds": 0.15,
        "perf/tokens_per_second": 4000.0,
        "perf/memory_bytes": 2.0**30,
    } | dict.fromkeys(SHARES, 0.4)
    if step % 20 == 0:
        values |= {"validation/accuracy": 0.42 + 0.3 * learned, "validation/strict_accuracy": 0.4 + 0.3 * learned}
    return values


def made_up_histograms(step: int) -> list[Histogram]:
    noise = random.Random(step)
    found = []
    shapes = (("rareness", 0, 1, 0.4, 0.15), ("expert/gap", -10, 14, 4, 3), ("rareness/wrong", 0, 1, 0.8, 0.1))
    for name, low, high, centre, spread in shapes:
        bins = 24
        edges = [low + (high - low) * edge / bins for edge in range(bins + 1)]
        counts = [0] * bins
        for _ in range(200):
            value = noise.gauss(centre, spread)
            counts[min(max(int((value - low) / (high - low) * bins), 0), bins - 1)] += 1
        found.append(Histogram(step=step, name=name, edges=edges, counts=counts))
    return found


def completion(text: str, *, passed: bool) -> dict[str, Any]:
    tokens = [text[start : start + 4] for start in range(0, len(text), 4)]
    numbers = [round(math.sin(index), 3) for index in range(len(tokens))]
    return {
        "text": text,
        "tokens": tokens,
        "logprobs": [-abs(number) for number in numbers],
        "entropies": [abs(number) for number in numbers],
        "gaps": [*[4 * number for number in numbers[:-1]], None],
        "rewards": {"math": float(passed), "format": 1.0},
        "reward": 1.1 if passed else 0.1,
        "advantage": 0.7 if passed else -0.3,
        "passed": passed,
        "truncated": not passed,
    }


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((56, 56)).save(buffer, format="PNG")
    return buffer.getvalue()


def _curves(world: World, query: dict[str, str]) -> Any:
    """Buckets as the service makes them, of finite values."""
    ids = [UUID(text) for text in query["jobs"].split(",")]
    rows = {id: world.metrics.get(id, []) for id in ids}
    last = max((row.step for of in rows.values() for row in of), default=None)
    first = int(query.get("from_step", 0))
    width = int(query.get("width", 0)) or _width(first, last or 0, int(query["points"]))
    series = []
    for id, name in ((id, name) for id in ids for name in query["names"].split(",")):
        buckets: dict[int, list[MetricRow]] = {}
        for row in rows[id]:
            if name in row.values and row.step >= first // width * width:
                buckets.setdefault(row.step // width * width, []).append(row)
        series.append(_series(id, name, buckets))
    return Curves(width=width, last_step=last, series=series).model_dump(mode="json")


def _width(first: int, last: int, points: int) -> int:
    width = 1
    while last // width - first // width >= points:
        width *= 2
    return width


def _series(id: UUID, name: str, buckets: dict[int, list[MetricRow]]) -> Series:
    values = [[float(row.values[name]) for row in rows] for rows in buckets.values()]
    finite = [[value for value in some if math.isfinite(value)] for some in values]
    return Series(
        job_id=id,
        name=name,
        start=list(buckets),
        first_step=[rows[0].step for rows in buckets.values()],
        last_step=[rows[-1].step for rows in buckets.values()],
        ts=[rows[-1].ts for rows in buckets.values()],
        count=list(map(len, finite)),
        non_finite=[len(some) - len(good) for some, good in zip(values, finite, strict=True)],
        min=[min(some, default=None) for some in finite],
        max=[max(some, default=None) for some in finite],
        mean=[sum(some) / len(some) if some else None for some in finite],
        last=[some[-1] if some else None for some in finite],
    )


def _summed(world: World, job: Job, query: dict[str, str]) -> Any:
    """A job's histograms, added up by buckets."""
    first = int(query["after_step"]) + 1
    kept = [row for row in world.histograms.get(job.id, []) if row.name == query["name"]]
    last = max((row.step for row in kept), default=0)
    width = int(query.get("width", 0)) or _width(first, last, int(query["points"]))
    sums: dict[int, Histogram] = {}
    for row in kept:
        start = row.step // width * width
        if start < first // width * width:
            continue
        before = sums.get(start)
        counts = row.counts if before is None else [a + b for a, b in zip(before.counts, row.counts, strict=True)]
        sums[start] = row.model_copy(update={"step": start, "width": width, "counts": counts})
    return _page(list(sums.values()), 5000)


def _jobs(world: World, query: dict[str, str]) -> Any:
    """A page of jobs, as far as tests of the dashboard choose and sort them."""
    parent = query.get("derived_from")
    chosen = [
        job
        for job in world.jobs.values()
        if query.get("status") in (None, job.status)
        and query.get("kind") in (None, job.kind)
        and query.get("project") in (None, job.project)
        and query.get("q", "") in job.name
        and query.get("label") in (None, *(f"{name}:{value}" for name, value in job.labels.items()))
        and (parent is None or parent == str(job.forked_from) or UUID(parent) in job.depends_on)
    ]
    if query.get("sort") == "name":
        chosen.sort(key=lambda job: job.name)
    else:
        chosen.sort(key=lambda job: job.created_at, reverse=query.get("sort") != "created")
    first = 1 + [str(job.id) for job in chosen].index(query["after"]) if "after" in query else 0
    return _page(chosen[first:], int(query["limit"]))


def _answer(world: World, path: str, query: dict[str, str], body: dict[str, Any]) -> Any:
    """The records behind a path as JSON, bytes for an image, or None where there is nothing."""
    parts = path.strip("/").split("/")[1:]
    if parts == ["jobs"]:
        return _jobs(world, query)
    if parts == ["queue"]:
        return _page([entry for entry in world.queue if query.get("project") in (None, entry.project)], 1000)
    if parts == ["workers"]:
        return _page(world.workers, 1000)
    if parts == ["metrics"]:
        return _curves(world, query)
    if parts == ["me"]:
        return world.me.model_dump(mode="json")
    if parts == ["projects"]:
        named = world.me.projects or {"default": Role.ADMIN}
        return _page([Project(slug=slug, created_at=BEGAN) for slug in named], 1000)
    if parts == ["datasets"]:
        return _page(world.datasets, int(query["limit"]))
    if parts[0] == "datasets":
        return next((each.model_dump(mode="json") for each in world.datasets if str(each.id) == parts[1]), None)
    if (job := world.jobs.get(UUID(parts[1]))) is None:
        return None
    if len(parts) == 2:
        return job.model_dump(mode="json")
    return _answer_of_job(world, job, parts[2:], query, body)


def _answer_of_job(world: World, job: Job, parts: list[str], query: dict[str, str], body: dict[str, Any]) -> Any:
    """Return the answer to a request below a job's path."""
    after, after_step = int(query.get("after", 0)), int(query.get("after_step", 0))
    limit = int(query.get("limit", 1000))
    match parts:
        case ["metrics"]:
            names = set(query["names"].split(","))
            rows = [
                row.model_copy(update={"values": {name: row.values[name] for name in row.values.keys() & names}})
                for row in world.metrics.get(job.id, [])
                if row.step > after_step
            ]
            return _page(rows, limit)
        case ["histograms"]:
            return _summed(world, job, query)
        case ["samples"]:
            kept = world.samples.get(job.id, [])
            found = [sample for sample in kept if query.get("q", "") in json.dumps(sample.group)]
            return _page([sample for sample in found if sample.id > after], limit)
        case ["samples", id]:
            return next(s.model_dump(mode="json") for s in world.samples[job.id] if s.id == int(id))
        case ["images", sha256]:
            return world.images[sha256]
        case ["events"]:
            return _page([event for event in world.events.get(job.id, []) if event.id > after], limit)
        case ["checkpoints"]:
            return _page(world.checkpoints.get(job.id, []), limit)
        case ["log"]:
            text = world.logs.get(job.id, b"")
            return {"text": text[after:].decode(), "next": len(text)}
        case ["checkpoints", step]:
            kept = next(one for one in world.checkpoints[job.id] if one.step == int(step))
            files = [{"name": "model.safetensors", "bytes": 6_400_000, "etag": "x"}]
            return kept.model_dump(mode="json") | {"files": files}
        case ["fork"]:
            return world.fork(job, body)
        case [("cancel" | "pause" | "resume" | "retry") as verb]:
            world.change(job, status=AFTER[verb])
            return world.jobs[job.id].model_dump(mode="json")
    return None


def _page(rows: list[Any], limit: int) -> dict[str, Any]:
    return {"data": [row.model_dump(mode="json") for row in rows[:limit]], "has_more": len(rows) > limit}


def _handler(world: World) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            world.requests.append(self.path)
            address = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(address.query).items()}
            if self.headers["Authorization"].removeprefix("Bearer ") not in world.keys:
                return self._send(401, {"title": "Unauthorized", "status": 401, "detail": "the key is wrong"})
            if world.fails:
                return self._send(500, {"title": "Something broke", "status": 500})
            body = self._body()
            if (made := world.answers.get(f"{self.command} {address.path}")) is not None:
                answer = made(body)
            else:
                answer = _answer(world, address.path, query, body)
            if isinstance(answer, Refusal):
                return self._send(answer.status, answer.document())
            if answer is None:
                return self._send(404, {"title": "Not found", "status": 404, "detail": "no such job"})
            refused = isinstance(answer, dict) and "errors" in answer
            return self._send(422 if refused else 200, answer)

        do_POST = do_DELETE = do_GET

        def _body(self) -> Any:
            if self.headers["Transfer-Encoding"] == "chunked":
                content = b""
                while size := int(self.rfile.readline(), 16):
                    content += self.rfile.read(size + 2)[:-2]
                self.rfile.readline()
            else:
                content = self.rfile.read(int(self.headers["Content-Length"] or 0))
            return json.loads(content) if self.headers["Content-Type"] == "application/json" else content

        def _send(self, status: int, answer: Any) -> None:
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A hand-made service that the dashboard's settings name."""
    with serving(World()) as made:
        monkeypatch.setenv("CALIBRL_API_URL", made.url)
        monkeypatch.setenv("CALIBRL_API_KEY", KEY)
        monkeypatch.setattr("dashboard.signin.sent_cookies", _cookies)
        forget()
        yield made
        forget()


def _cookies() -> dict[str, str]:
    """The viewer has signed in with the key that the environment names."""
    key = os.environ.get("CALIBRL_API_KEY")
    return {"calibrl_key": key} if key else {}


class serving:
    """Serve a world on a free port until the block ends."""

    def __init__(self, world: World, port: int = 0) -> None:
        self._world = world
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(world))
        self._server.daemon_threads = True
        world.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> World:
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self._world

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def forget() -> None:
    """Drop what this process remembers of settings and answers."""
    import streamlit as st

    from jobs.settings import get_settings

    get_settings.cache_clear()
    st.cache_data.clear()
    st.cache_resource.clear()
