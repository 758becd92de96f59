"""Slot-hours of jobs and projects, by what they bought."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from sqlalchemy.orm import Session

from calibrl.schemas import HOUR, JobHours, JobStatus, Price, ProjectHours, SlotHours
from jobs import models
from jobs.errors import Conflict
from jobs.repository import hours, projects
from jobs.settings import get_settings

MOST = 20  # jobs that a project lists


def job_hours(session: Session, job: models.Job) -> JobHours:
    """Return the slot-hours of a job.

    Raises:
        Conflict: the job has not started.
    """
    attempts = hours.of_job(session, job.id)
    if not attempts:
        raise Conflict(f"Job {job.id} has not started, so it has used no slot-hours.")
    return _of_job(job, attempts)


def project_hours(session: Session, slug: str, days: int) -> ProjectHours:
    """Return the slot-hours of the attempts of a project that began in the last days.

    Raises:
        NotFound: no project has this name.
    """
    projects.get(session, slug)
    rows = hours.of_project(session, slug, days)
    found = [_of_job(job, list(attempts)) for job, attempts in groupby(rows, lambda row: row.Job)]
    found.sort(key=lambda one: one.slot_hours, reverse=True)
    prices = [one.price for one in found]
    price = Price(amount=sum(one.amount for one in prices if one), currency=get_settings().currency)
    return ProjectHours(
        project=slug,
        days=days,
        jobs=len(found),
        slot_hours=sum(one.slot_hours for one in found),
        gpu_hours=sum(one.gpu_hours for one in found),
        bought=_added([one.bought for one in found]),
        lost_slot_hours=sum(one.slot_hours for one in found if one.status in JobStatus.broken_ones()),
        price=price if all(prices) and prices else None,
        most=found[:MOST],
    )


def _added(parts: Sequence[SlotHours]) -> SlotHours:
    return SlotHours(**{name: sum(getattr(part, name) for part in parts) for name in SlotHours.model_fields})


def _of_job(job: models.Job, attempts: Sequence[Any]) -> JobHours:
    slots, gpus = job.machines * max(job.gpus, 1), job.machines * job.gpus
    seconds = sum(row.seconds for row in attempts)
    spent = _spent(job, attempts)
    first = next((row.first for row in attempts if row.first is not None), None)
    best = max((row.best for row in attempts if row.best is not None), default=None)
    slot_hours = slots * seconds / HOUR
    lived = ((job.finished_at or datetime.now(UTC)) - job.created_at).total_seconds()
    gained = 100 * (best - first) if best is not None and first is not None else 0.0
    return JobHours(
        job_id=job.id,
        name=job.name,
        kind=job.kind,
        status=job.status,
        slots=slots,
        slot_hours=slot_hours,
        gpu_hours=gpus * seconds / HOUR,
        bought=SlotHours(**{name: slots * value / HOUR for name, value in spent.items()}),
        queued_hours=max(lived - attempts[0].held, 0.0) / HOUR,
        first_accuracy=first,
        best_accuracy=best,
        slot_hours_per_point=slot_hours / gained if gained > 0 else None,
        price=_price(slot_hours, gpu=job.gpus > 0),
    )


def _price(slot_hours: float, *, gpu: bool) -> Price | None:
    settings = get_settings()
    each = settings.gpu_hour_price if gpu else settings.cpu_slot_hour_price
    return None if each is None else Price(amount=slot_hours * each, currency=settings.currency)


def _spent(job: models.Job, attempts: Sequence[Any]) -> dict[str, float]:
    """Return the seconds of a job by the names of `SlotHours`."""
    if job.kind == "train" and (attempts[0].measured or not job.step):
        return split(attempts)
    # A training job with steps but without metrics is past the retention of its project.
    return {"other" if job.kind == "train" else "evaluation": sum(row.seconds for row in attempts)}


def split(attempts: Sequence[Any]) -> dict[str, float]:
    """Return the seconds of a training job by the names of `SlotHours`. They add up to the seconds of its attempts.

    attempts: rows of `repository.hours.of_job`. Clocks of machines differ a little, so a part can be negative by a
    little; it counts as 0, and the other parts of the attempt shrink until they fit.
    """
    spent: dict[str, float] = defaultdict(float)
    for place, row in enumerate(attempts):
        again, ended_early = row.number > 1, place < len(attempts) - 1
        parts: dict[str, float] = defaultdict(float)
        if row.rows == 0:
            parts["restarts" if again or ended_early else "start"] = row.seconds
        else:
            parts["restarts" if again else "start"] += max(row.before, 0.0)
            parts["restarts" if ended_early else "other"] += max(row.after, 0.0)
            parts |= {"no_advantage": row.idle, "truncated": row.cut, "waiting": row.waiting}
            parts["validation"] = row.validation
            parts["learning"] = max(row.steps - row.idle - row.cut - row.waiting, 0.0)
        known = sum(parts.values())
        scale = min(1.0, row.seconds / known) if known else 1.0
        parts["other"] += max(row.seconds - known, 0.0)
        for name, value in parts.items():
            spent[name] += value * scale
    return spent
