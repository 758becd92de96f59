"""Copies a run's event file and log to the database: each byte exactly once, after any failure."""

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from calibrl.schemas import HealthAlert
from calibrl.schemas.fault_texts import fault_text
from calibrl_core.report import EVENT_FILE, IMAGE_FOLDER
from calibrl_core.settings.record import SampleSettings
from jobs import lifecycle
from jobs.alerts.metric_rules import MetricRules
from jobs.db import session_scope
from jobs.lifecycle import Claim
from jobs.models import Job
from jobs.repository import (
    accuracies,
    attempts,
    checkpoints,
    events,
    histograms,
    images,
    jobs,
    logs,
    metrics,
    samples,
    visits,
)
from worker import attempt_folder
from worker.attempt_folder import CheckpointsMissing
from worker.events import (
    AccuraciesLine,
    CheckedLine,
    CheckpointLine,
    ErrorLine,
    FinishLine,
    HealthLine,
    HistogramLine,
    LogLine,
    MetricsLine,
    ProgressLine,
    RunEvent,
    SampleLine,
    StartLine,
    VisitsLine,
    run_event_adapter,
)

LOG_FILE = "log.txt"
BATCH_LINES = 500
BATCH_BYTES = 4_000_000
MAX_LINE_BYTES = 64_000_000
LOG_BATCH_BYTES = 256_000
MAX_LOG_BYTES = 100_000_000  # of a job, in the database
MEGABYTE = 1_000_000
RECENT_STEPS = 20


@dataclass
class _Batch:
    """Events written in one transaction; `offset` is the start of the next batch in the file."""

    events: list[RunEvent] = field(default_factory=list)
    offset: int = 0
    skipped: list[str] = field(default_factory=list)


@dataclass
class _Rows:
    """Rows of a batch that are written together."""

    metrics: list[tuple[int, datetime, dict[str, Any]]] = field(default_factory=list)
    histograms: list[tuple[int, str, list[float], list[int]]] = field(default_factory=list)
    visits: list[dict[str, Any]] = field(default_factory=list)


def _lines(path: Path, offset: int) -> Iterator[bytes]:
    """Yield complete lines from `offset` on, at most one batch; an unfinished last line is left for later. A line of
    more than MAX_LINE_BYTES is yielded in pieces."""
    size = 0
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for _ in range(BATCH_LINES):
            line = file.readline(MAX_LINE_BYTES)
            if not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
                return
            yield line
            size += len(line)
            if size > BATCH_BYTES:
                return


def _begins_line(path: Path, offset: int) -> bool:
    if offset == 0:
        return True
    with path.open("rb") as file:
        file.seek(offset - 1)
        return file.read(1) in (b"\n", b"")


def read_batch(path: Path, offset: int) -> _Batch:
    """Read the next events of a file. Invalid lines are skipped, each with the reason; lines that are
    too long are read in pieces and skipped, so that one line never fills the memory."""
    batch = _Batch(offset=offset)
    whole = not path.exists() or _begins_line(path, offset)
    for line in _lines(path, offset):
        batch.offset += len(line)
        first_piece, whole = whole, line.endswith(b"\n")
        if not (first_piece and whole):
            if first_piece:
                batch.skipped.append(f"longer than {MAX_LINE_BYTES} bytes")
            continue
        try:
            batch.events.append(run_event_adapter.validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            batch.skipped.append(f"{where}: {fault_text(first)}" if where else fault_text(first))
    return batch


class Shipper:
    """Shipper of one claim. `finish` and `error` hold the trainer's own report of its end, once shipped."""

    def __init__(self, claim: Claim, run_dir: Path, worker: str) -> None:
        self._claim = claim
        self._run_dir = run_dir
        self._worker = worker
        self._rules = MetricRules(claim.job_id, worker)
        self._shipped: tuple[int, int] | None = None  # offsets of the last commit
        self._began_at = 0
        self._stepped_at: float | None = None
        self._step_seconds: deque[float] = deque(maxlen=RECENT_STEPS)
        self.step: int | None = None  # highest step of this attempt; an evaluation or audit counts batches
        self.checkpoints_reported = False  # since the supervisor last reset it
        self.stepped = False  # the trainer has passed its start, where it reports the checkpoints it found
        self.finish: FinishLine | None = None
        self.error: ErrorLine | None = None

    def ship(self) -> bool:
        """Ship one batch of each file in one transaction; return True if anything was shipped.

        Raises:
            CheckpointsMissing: the trainer began before the recorded checkpoints; nothing was written.
            LeaseLost: another attempt owns the job.
            SQLAlchemyError: the database is unreachable; the batch was written whole or not at all.
        """
        if self._shipped == self._sizes():
            return False
        try:
            return self._ship()
        except BaseException:
            self._rules.forget()
            raise

    def _ship(self) -> bool:
        with session_scope() as session:
            job = lifecycle.fence(session, self._claim)
            # Read each time: a commit may have succeeded although its answer was lost.
            offsets = jobs.shipped_offsets(session, self._claim.job_id, self._claim.attempt)
            batch = read_batch(self._run_dir / EVENT_FILE, offsets[0])
            log_end = self._ship_log(session, job, offsets[1])
            for run in _runs(batch.events):
                self._write(session, job, run)
            if batch.skipped:
                message = f"lines skipped in {EVENT_FILE}: {len(batch.skipped)}; the first: {batch.skipped[0]}"
                self._note(session, "warning", message)
            shipped = batch.offset, log_end
            if shipped != offsets:
                jobs.set_shipped(session, self._claim.job_id, self._claim.attempt, *shipped)
        self._shipped = shipped
        return shipped != offsets

    @property
    def longest_step(self) -> float:
        """Seconds of the longest recent step; 0 if none is known."""
        return max(self._step_seconds, default=0.0)

    def _note_time(self, ts: float) -> None:
        if self._stepped_at is not None:
            self._step_seconds.append(ts - self._stepped_at)
        self._stepped_at = ts

    def _sizes(self) -> tuple[int, int]:
        return _size(self._run_dir / EVENT_FILE), _size(self._run_dir / LOG_FILE)

    def _ship_log(self, session: Session, job: Job, offset: int) -> int:
        path = self._run_dir / LOG_FILE
        if not path.exists():
            return offset
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(LOG_BATCH_BYTES)
        room = MAX_LOG_BYTES - job.log_length
        if data and room > 0:
            logs.append(session, job, data[:room])
            if len(data) >= room:
                text = f"the log has {MAX_LOG_BYTES // MEGABYTE} MB; the rest is only in {path} on {self._worker}"
                self._note(session, "warning", text)
        return offset + len(data)

    def _note(self, session: Session, type: str, message: str) -> None:
        events.add(session, self._claim.job_id, type, actor=self._worker, message=message)

    def _write(self, session: Session, job: Job, run: list[RunEvent]) -> None:
        """Write events; only the first can be a `start`."""
        job_id = self._claim.job_id
        total, rows = None, _Rows()
        for event in run:
            match event:
                case StartLine():
                    self._write_start(session, event)
                    total = event.steps_total
                case CheckedLine():
                    self._note(session, events.CHECKED, checked_sentence(event))
                case MetricsLine():
                    self._note_time(event.ts)
                    rows.metrics.append((event.step, datetime.fromtimestamp(event.ts, UTC), dict(event.values)))
                    self.step, self.stepped = max(self.step or 0, event.step), True
                case HistogramLine():
                    rows.histograms.append((event.step, event.name, event.edges, event.counts))
                case ProgressLine():
                    self.step, total = max(self.step or 0, event.step), event.steps_total
                case VisitsLine():
                    rows.visits.append({"step": event.step, **event.lists()})
                case SampleLine():
                    self._write_sample(session, event)
                case AccuraciesLine(model_index=index, split=split, prompts=prompts, values=values):
                    accuracies.put(session, job_id, index, split, prompts, values)
                case CheckpointLine():
                    self._write_checkpoint(session, event)
                case LogLine():
                    self._note(session, event.level, event.message)
                case HealthLine():
                    alert = HealthAlert.model_validate(event, from_attributes=True)
                    events.add_step_alert(session, job_id, alert, actor=self._worker)
                case ErrorLine():
                    self.error = self.error or event  # later errors of other processes follow from the first
                case FinishLine():
                    self.finish = event
                    self.step, self.stepped = event.step, True
        self._rules.observe(session, job, rows.metrics)
        metrics.upsert(session, job_id, rows.metrics)
        histograms.upsert(session, job_id, rows.histograms)
        visits.put(session, job_id, rows.visits)
        if self.step is not None:
            jobs.set_progress(session, job_id, self.step, total)

    def _write_start(self, session: Session, event: StartLine) -> None:
        job_id = self._claim.job_id
        self.finish = self.error = None
        self.step = self._began_at = event.step
        self._refuse_lost_checkpoints(session, event.step)
        jobs.rewind(session, job_id, event.step)
        events.take_back_alerts(session, job_id, event.step, actor=self._worker)
        self._rules.forget()
        samples.count_again(session, job_id)
        jobs.set_start(session, job_id, self._claim.attempt, event.step, event.record)

    def _write_checkpoint(self, session: Session, event: CheckpointLine) -> None:
        job_id = self._claim.job_id
        self.checkpoints_reported = True
        attempt_folder.keep_new(self._run_dir, Path(event.path))
        if event.step > self._began_at:
            attempts.set_saved(session, job_id, self._claim.attempt)
        checkpoints.record(session, job_id, event.step, event.path, event.best, dict(event.metrics), event.removed)
        self._note(session, "checkpoint", f"step {event.step}{', the best so far' if event.best else ''}")

    def _refuse_lost_checkpoints(self, session: Session, step: int) -> None:
        """Refuse a trainer that began before every recorded checkpoint: it found none of them, and the curves after its
        start would be deleted."""
        known = [row.step for row in checkpoints.of_job(session, self._claim.job_id)]
        if known and step < known[0]:
            steps = ", ".join(map(str, known))
            raise CheckpointsMissing(
                f"the trainer began at step {step}: it could not use the checkpoints of steps {steps}. The log has the "
                "reason. Restore their files and resume the job. To start at step 0, submit a new job"
            )

    def _write_sample(self, session: Session, sample: SampleLine) -> None:
        limit = int(SampleSettings.model_validate(self._claim.config.get("samples", {})).max_megabytes * MEGABYTE)
        job_id = self._claim.job_id
        paths = [self._run_dir / IMAGE_FOLDER / f"{digest}.png" for digest in dict.fromkeys(sample.group.images)]
        new = [path for path in paths if not images.exists(session, job_id, path.stem) and path.exists()]
        size = sum(map(_size, new))
        if samples.insert(session, job_id, sample.step, sample.group.model_dump(), limit, image_bytes=size):
            for path in new:
                self._store_image(session, path)

    def _store_image(self, session: Session, path: Path) -> None:
        """Store an image under the hash of its content. All jobs share images by hash, so the name is not trusted."""
        png = path.read_bytes()
        if hashlib.sha256(png).hexdigest() == path.stem:
            images.put(session, self._claim.job_id, path.stem, png)
        else:
            self._note(session, "warning", f"image skipped: the content of {path.name} has another hash")


def _runs(batch: list[RunEvent]) -> Iterator[list[RunEvent]]:
    """Split the events before each `start`: later events must be written after its rewind."""
    cuts = [0, *(index for index, event in enumerate(batch) if index and isinstance(event, StartLine)), len(batch)]
    return (batch[begin:end] for begin, end in pairwise(cuts) if end > begin)


def checked_sentence(event: CheckedLine) -> str:
    """Return the result of a check at load as text for people."""
    day = datetime.fromtimestamp(event.measured_at, UTC)
    return (
        f"model {event.model_index + 1} was checked on {day:%Y-%m-%d}: sampler, update and transformers differ by at "
        f"most {event.difference:.1g} nats (limit {event.limit:.2g})"
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
