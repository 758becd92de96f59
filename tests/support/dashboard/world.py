"""The service that the dashboard under test reads: a database filled by the test, and the real API in front of it."""

import asyncio
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from calibrl.schemas import (
    GIB,
    Dataset,
    GpuReading,
    HealthAlert,
    Job,
    JobFilter,
    JobStatus,
    NewKey,
    NewUser,
    Role,
    WorkerStatus,
    job_spec_adapter,
)
from calibrl.schemas import Scope as KeyScope
from jobs import models
from jobs.access import callers
from jobs.db import session_scope
from jobs.files.datasets import key_of, storage
from jobs.repository import (
    access,
    checkpoints,
    datasets,
    events,
    histograms,
    images,
    job_machines,
    jobs,
    logs,
    metrics,
    projects,
    samples,
    workers,
)
from jobs.settings import get_settings
from jobs.specs.references import References
from tests.support.dashboard.records import DATASET, PREVIEW, completion, histograms_of, metrics_of, picture
from tests.support.dashboard.specs import SPECS

BEGAN = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
HANGING_SECONDS = 2.0
CHECKPOINT_BYTES = 6_400_000
SAMPLE_BYTES = 10**9  # limit that no test reaches
NOT_STARTED = (JobStatus.QUEUED, JobStatus.WAITING)
HOSTILE = (
    "<script>window.pwned = 1</script>"
    '<img src="x" onerror="window.pwned = 2">'
    "**bold** [link](javascript:window.pwned=3) $x^2$ :smile: `code` & &lt;b&gt;"
)


@dataclass(frozen=True)
class Refusal:
    """A problem document that the API would send in a state that a seeded database cannot have."""

    status: int
    detail: str = ""
    errors: tuple[dict[str, str], ...] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        document = {"type": "about:blank", "title": HTTPStatus(self.status).phrase} | asdict(self)
        await JSONResponse(document, self.status, media_type="application/problem+json")(scope, receive, send)


class World:
    """The service's data, written through its repositories, and the requests that the dashboard sent.

    `key`: the key in the viewer's cookie; empty: there is no cookie. `refusals`: answers in place of the API's, by
    method and path. `fails`: from now on each request is answered with status 500. `hangs`: from
    now on each is answered only after HANGING_SECONDS.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.bodies: dict[str, list[Any]] = {}
        self.refusals: dict[str, Refusal] = {}
        self.fails = False
        self.hangs = False
        self.key = ""
        self._user = ""
        self._added = 0

    def asked(self, operation: str) -> list[Any]:
        """Return the JSON bodies of the requests of an operation, such as `POST /v1/jobs`, in order."""
        return self.bodies.get(operation, [])

    def sign_in(self, user: str, roles: Mapping[str, Role], *, admin: bool = False, scope: KeyScope = "write") -> str:
        """Make a new user the viewer, with these roles by project. Return the user's key."""
        with session_scope() as session:
            callers.add_user(session, NewUser(name=user, admin=admin))
            for project, role in roles.items():
                if not projects.exists(session, project):
                    projects.put(session, project, {"weight": 1.0})
                callers.put_member(session, project, user, role)
            self._user = user
            self.key = callers.create_key(session, user, NewKey(name="test", scope=scope)).key
        return self.key

    def add_key(self, name: str) -> None:
        """Give the viewer another key."""
        with session_scope() as session:
            callers.create_key(session, self._user, NewKey(name=name))

    def revoke(self, key: str) -> None:
        """Revoke a key."""
        with session_scope() as session:
            found = access.valid_key(session, callers.key_hash(key))
            assert found is not None
            row = access.key(session, found.id)
            assert row is not None
            access.revoke(session, row)

    def add(self, **changes: Any) -> Job:
        """Add a job: a running training job, unless the changes say otherwise. Each is a second newer than the last.

        Args:
            changes: columns of the job, and the ids of its `depends_on` and `datasets`. `spec` has only the fields that
                differ from `SPECS`.
        """
        spec = job_spec_adapter.validate_python(SPECS[changes.get("kind", "train")] | changes.pop("spec", {}))
        status = changes.get("status", JobStatus.RUNNING)
        created = BEGAN + timedelta(seconds=self._added)
        self._added += 1
        started = status not in NOT_STARTED
        columns = {
            "id": uuid4(),
            "name": spec.name,
            "kind": spec.kind,
            "project": "default",
            "user": "user",
            "priority": "normal",
            "labels": spec.labels,
            "gpus": 0,
            "status": status,
            "steps_total": 280 if started else None,
            "attempt": int(started),
            "created_at": created,
            "started_at": created + timedelta(seconds=3) if started else None,
            "finished_at": created + timedelta(minutes=10) if status.final else None,
            "spec": spec.model_dump(mode="json"),
            "machine_labels": spec.resources.labels,
        } | changes
        needed = [models.JobDependency(depends_on_id=id) for id in columns.pop("depends_on", [])]
        data = [models.JobDataset(dataset_id=id) for id in columns.pop("datasets", [])]
        with session_scope() as session:
            sources = {*References.of(spec).jobs, *(one.depends_on_id for one in needed), columns.get("forked_from")}
            # Some tests name a job that was deleted, or that its reader must not see.
            present = session.scalars(select(models.Job.id).where(models.Job.id.in_(sources - {None})))
            origins = [models.JobOrigin(from_id=id) for id in present]
            job = models.Job(**columns, dependencies=needed, datasets=data, origins=origins)
            session.add(job)
            session.flush()
            session.add_all(_attempts(job))
            return Job.model_validate(job)

    def job(self, id: UUID) -> Job:
        """Return the present state of a job."""
        with session_scope() as session:
            return Job.model_validate(jobs.get(session, id))

    def named(self, name: str) -> Job:
        """Return the only job of this name."""
        with session_scope() as session:
            (found,) = jobs.page(session, JobFilter(q=name))
            return Job.model_validate(jobs.get(session, found.id))

    def change(self, job: Job, **changes: Any) -> Job:
        """Change columns of a job, and return its present state."""
        with session_scope() as session:
            row = jobs.get(session, job.id)
            for name, value in changes.items():
                setattr(row, name, value)
        return self.job(job.id)

    def run(self, job: Job, *attempts: tuple[float, float | None]) -> None:
        """Set the attempts of a job: start and end of each, in seconds after BEGAN; None: it is running."""
        with session_scope() as session:
            for row, (begin, end) in zip(jobs.attempts(session, job.id), attempts, strict=True):
                row.started_at = BEGAN + timedelta(seconds=begin)
                row.finished_at = None if end is None else BEGAN + timedelta(seconds=end)

    def measure(
        self, job: Job, steps: range, values: Mapping[str, float | str] | None = None, *, later: float = 0
    ) -> None:
        """Report metrics at these steps, one second apart: these values, or made-up ones with histograms. `later`:
        seconds by which all are delayed."""
        began = BEGAN + timedelta(seconds=later)
        with session_scope() as session:
            rows = [
                (step, began + timedelta(seconds=step), dict(values) if values else metrics_of(step)) for step in steps
            ]
            metrics.upsert(session, job.id, rows)
            if values is None:
                histograms.upsert(session, job.id, histograms_of(steps))
            jobs.set_progress(session, job.id, steps[-1], None)

    def spread(self, job: Job, steps: range) -> None:
        """Report made-up histograms at these steps."""
        with session_scope() as session:
            histograms.upsert(session, job.id, histograms_of(steps))

    def rewind(self, job: Job, step: int) -> None:
        """Take back the output after a step, as an attempt that continues from there does."""
        with session_scope() as session:
            jobs.rewind(session, job.id, step)

    def keep_sample(
        self, job: Job, step: int, *texts: str, expert: str = "3 plus 4 makes 7.", prompt_id: str = "train-17"
    ) -> None:
        """Store a sampled group with these completions; the first one passed. Later groups have more entropy."""
        png = picture()
        sha256 = hashlib.sha256(png).hexdigest()
        with session_scope() as session:
            before = len(samples.page(session, job.id, step=None, after=0, limit=1000))
            entropy = 0.2 + 0.1 * before
            group = {
                "prompt_id": prompt_id,
                "prompt": "What is the sum of the two digits?",
                "answer": "7",
                "images": [sha256],
                "expert": expert,
                "completions": [
                    completion(text, passed=not index, entropy=entropy) for index, text in enumerate(texts)
                ],
            }
            assert samples.insert(session, job.id, step, group, SAMPLE_BYTES, image_bytes=len(png))
            images.put(session, job.id, sha256, png)

    def log(self, job: Job, text: bytes) -> None:
        """Append to the log of a job."""
        with session_scope() as session:
            logs.append(session, jobs.lock(session, job.id), text)

    def alert(self, job: Job, alert: HealthAlert) -> None:
        """A health rule of a job fires or clears."""
        with session_scope() as session:
            events.add_alert(session, job.id, alert, actor="worker")

    def note(self, job: Job, message: str, type: str = "warning", actor: str = "worker") -> None:
        """Add an event to a job."""
        with session_scope() as session:
            events.add(session, job.id, type, actor=actor, message=message)

    def keep_checkpoint(self, job: Job, step: int, *, best: bool = False) -> None:
        """Keep a checkpoint, whose only file has CHECKPOINT_BYTES."""
        folder = get_settings().run_dir(job.id, job.attempt) / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        file = folder / "model.safetensors"
        file.touch()
        os.truncate(file, CHECKPOINT_BYTES)
        with session_scope() as session:
            checkpoints.record(session, job.id, step, str(folder), best, {"validation/accuracy": 0.6}, [])

    def machine(
        self,
        name: str = "machine-1",
        *,
        cpu_slots: int = 2,
        labels: Mapping[str, str] | None = None,
        gpus: Iterable[float] = (40.0,),
    ) -> str:
        """Add a machine whose free GPUs have these utilisations in percent. Return its name."""
        readings = [
            GpuReading(
                index=index,
                name="H100",
                uuid=f"GPU-{index}",
                memory_total=80 * GIB,
                memory_used=20 * GIB,
                utilisation=utilisation,
            )
            for index, utilisation in enumerate(gpus)
        ]
        known = {"gpu": "h100"} if labels is None else dict(labels)
        with session_scope() as session:
            workers.register(session, name, host="h", labels=known, versions={}, cpu_slots=cpu_slots)
            workers.record_heartbeat(session, name, readings, [])
            workers.mark_clean(session, name, {reading.index for reading in readings})
        return name

    def drain(self, machine: str) -> None:
        """Let a machine take no new jobs."""
        with session_scope() as session:
            workers.set_status(session, machine, WorkerStatus.DRAINING)

    def hold(self, job: Job, machine: str, gpus: int = 0) -> None:
        """Let a running job hold a slot of one more machine: its first free GPUs, or one CPU slot."""
        with session_scope() as session:
            rank = len(job_machines.of_job(session, job.id))
            part = models.JobMachine(job_id=job.id, rank=rank, worker=machine, state=models.PartState.READY)
            part.lease_token = job.id
            session.add(part)
        main = {} if rank else {"worker": machine, "lease_token": job.id}
        self.change(job, machines=rank + 1, gpus=gpus, **main)
        with session_scope() as session:
            workers.assign_gpus(session, machine, job.id, workers.lock_free_gpus(session, machine)[:gpus])

    def add_dataset(self, content: bytes | None = None, **changes: Any) -> Dataset:
        """Add an uploaded dataset of one row, with its file if there is content. Each is a second newer.

        Args:
            changes: columns of the dataset. `preview` has only the fields of the row that differ from `PREVIEW`.
        """
        columns = DATASET | {"sha256": uuid4().hex * 2, "created_at": BEGAN + timedelta(seconds=self._added)} | changes
        columns["preview"] = [PREVIEW | changes.get("preview", {})] if columns["hub"] is None else []
        self._added += 1
        with session_scope() as session:
            row, _ = datasets.add(session, columns)
            if content is not None:
                file = get_settings().data_dir / "sent"
                file.write_bytes(content)
                storage().put(key_of(row), file)
            return Dataset.model_validate(row)

    def add_hub_dataset(self) -> Dataset:
        """Register a dataset of the hub."""
        unknown = dict.fromkeys(("format", "sha256", "bytes", "rows", "has_columns", "has_experts"))
        hub = {"hub": "hiyouga/geometry3k", "split": "test", "revision": None}
        return self.add_dataset(name="geometry", hub=hub, **unknown)


def _attempts(job: models.Job) -> list[models.Attempt]:
    """Return the attempts of a job; only the last can be running."""
    ended = None if job.status.held else job.finished_at or job.started_at
    return [
        models.Attempt(
            job_id=job.id,
            number=number,
            worker=job.worker or "machine-1",
            started_at=job.started_at,
            finished_at=ended if number == job.attempt else job.started_at,
            status=None if job.status.held and number == job.attempt else job.status,
        )
        for number in range(1, job.attempt + 1)
    ]


class Recorder:
    """Records each request in a world on its way to the API; answers it itself where the world says so."""

    def __init__(self, app: ASGIApp, world: World) -> None:
        self._app = app
        self._world = world

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        operation = f"{scope['method']} {scope['path']}"
        query = scope["query_string"].decode()
        self._world.requests.append(scope["raw_path"].decode() + (f"?{query}" if query else ""))
        body = bytearray()

        async def recorded() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            if message["type"] == "http.request" and not message.get("more_body") and body:
                self._world.bodies.setdefault(operation, []).append(_json(bytes(body)))
            return message

        if self._world.hangs:
            await asyncio.sleep(HANGING_SECONDS)
        refusal = Refusal(500) if self._world.fails else self._world.refusals.get(operation)
        return await (refusal or self._app)(scope, recorded, send)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body
