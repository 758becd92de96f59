"""Sampled groups of a run."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from psycopg.errors import QueryCanceled
from sqlalchemy import ColumnElement, Row, column, func, or_, select, true, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, undefer

from jobs.errors import FieldError, Invalid, NotFound
from jobs.models import Image, Job, JobImage, Sample
from jobs.postgres_text import storable
from jobs.repository import events, feed

MAX_SEARCH_SECONDS = 5  # limit of a text search


def insert(
    session: Session, job_id: UUID, step: int, group: dict[str, Any], max_bytes: int, *, image_bytes: int = 0
) -> bool:
    """Insert a group, unless the samples and images of the job would then exceed `max_bytes`. Return True if inserted.

    The first rejected group adds a warning event. Insert the images of the group after it, if it was inserted.

    Args:
        image_bytes: size of the images of the group that the job does not have yet.
    """
    size = len(json.dumps(group))
    if not _reserve(session, job_id, size + image_bytes, max_bytes):
        _warn_once(session, job_id, step, max_bytes)
        return False
    completions = group["completions"]
    advantages = [completion.get("advantage") for completion in completions]
    sample = Sample(
        job_id=job_id,
        step=step,
        prompt_id=group["prompt_id"],
        mean_reward=_mean([completion.get("reward") for completion in completions]),
        entropy=_mean([value for each in completions for value in each.get("entropies") or ()]),
        gap=_mean([value for each in completions for value in each.get("gaps") or () if value is not None]),
        rareness=_mean([abs(value) if isinstance(value, int | float) else value for value in advantages]),
        passed=sum(bool(completion.get("passed")) for completion in completions),
        size=len(completions),
        bytes=size,
        group=group,
    )
    session.add(sample)
    session.flush()
    feed.changes(session, job_id).samples.add(sample.id)
    return True


def _mean(values: Sequence[Any]) -> float | None:
    """Return the mean, or None if a value is not finite (a string in JSON) or the list is empty."""
    if not values or not all(isinstance(value, int | float) for value in values):
        return None
    return math.fsum(values) / len(values)


def page(
    session: Session,
    job_id: UUID,
    *,
    step: int | None,
    after: int,
    limit: int,
    text: str | None = None,
    min_reward: float | None = None,
    max_reward: float | None = None,
) -> list[Sample]:
    """Return groups in the order of arrival, without their contents.

    Args:
        step: only groups of this step; None: of all.
        after: id of the last group of the previous page.
        text: only groups with this text in the prompt, answer, expert or a completion.

    Raises:
        Invalid: the text search took longer than SEARCH_SECONDS.
    """
    query = select(Sample).where(Sample.job_id == job_id, Sample.id > after)
    if step is not None:
        query = query.where(Sample.step == step)
    if min_reward is not None:
        query = query.where(Sample.mean_reward >= min_reward)
    if max_reward is not None:
        query = query.where(Sample.mean_reward <= max_reward)
    if text is not None:
        query = query.where(_says(storable(text)))
        session.execute(select(func.set_config("statement_timeout", f"{MAX_SEARCH_SECONDS}s", True)))
    try:
        return list(session.scalars(query.order_by(Sample.id).limit(limit)))
    except OperationalError as error:
        if text is None or not isinstance(error.orig, QueryCanceled):
            raise
        why = f"the search takes longer than {MAX_SEARCH_SECONDS} s: also filter by step or reward"
        raise Invalid("The search takes too long.", (FieldError("q", why),)) from error


def _says(text: str) -> ColumnElement[bool]:
    """Match groups that contain the text, ignoring case."""
    elements = func.jsonb_array_elements(Sample.group["completions"])
    each = elements.table_valued(column("value", JSONB), name="each").render_derived()
    completions = select(true()).select_from(each).where(each.c.value["text"].astext.icontains(text, autoescape=True))
    texts = [Sample.group[name].astext.icontains(text, autoescape=True) for name in ("prompt", "answer", "expert")]
    return or_(Sample.prompt_id.icontains(text, autoescape=True), *texts, completions.exists())


def get(session: Session, job_id: UUID, sample_id: int) -> Sample:
    """Return one group with its contents.

    Raises:
        NotFound: the job has no sample of this id.
    """
    query = select(Sample).where(Sample.id == sample_id, Sample.job_id == job_id).options(undefer(Sample.group))
    sample = session.scalar(query)
    if sample is None:
        raise NotFound(f"Job {job_id} has no sample {sample_id}.")
    return sample


def completions(
    session: Session, job_id: UUID, *, first_step: int, last_step: int | None, limit: int
) -> Iterator[Row[Any]]:
    """Yield the completions of some steps without their tokens. Columns: `sample_id`, `step`, `prompt_id`, `answer`
    (the reference answer), `place` (in its group, from 1), `text`, and the JSON values `reward` and `passed`."""
    elements = func.jsonb_array_elements(Sample.group["completions"])
    each = elements.table_valued(column("value", JSONB), with_ordinality="place", name="each").render_derived()
    query = (
        select(
            Sample.id.label("sample_id"),
            Sample.step,
            Sample.prompt_id,
            func.coalesce(Sample.group["answer"].astext, "").label("answer"),
            each.c.place,
            func.coalesce(each.c.value["text"].astext, "").label("text"),
            each.c.value["reward"].label("reward"),
            each.c.value["passed"].label("passed"),
        )
        .select_from(Sample)
        .join(each, true())
        .where(*_of_steps(job_id, first_step, last_step))
        .order_by(Sample.id, each.c.place)
        .limit(limit)
    )
    return iter(session.execute(query.execution_options(yield_per=100)))


def count_completions(session: Session, job_id: UUID, *, first_step: int, last_step: int | None) -> int:
    """Return the number of stored completions of some steps."""
    query = select(func.coalesce(func.sum(Sample.size), 0)).where(*_of_steps(job_id, first_step, last_step))
    return int(session.scalar(query) or 0)


def sampled_steps(session: Session, job_id: UUID) -> list[int]:
    """Return the steps of a job that have stored completions, in order."""
    return list(session.scalars(select(Sample.step).where(Sample.job_id == job_id).distinct().order_by(Sample.step)))


def _of_steps(job_id: UUID, first: int, last: int | None) -> list[ColumnElement[bool]]:
    bounds = [Sample.job_id == job_id, Sample.step >= first]
    return bounds if last is None else [*bounds, Sample.step <= last]


def _reserve(session: Session, job_id: UUID, size: int, max_bytes: int) -> bool:
    """Count the bytes of a new group if they fit."""
    fits = (Job.id == job_id, Job.sample_bytes + size <= max_bytes)
    counted = update(Job).where(*fits).values(sample_bytes=Job.sample_bytes + size)
    return session.scalar(counted.returning(Job.id)) is not None


def count_again(session: Session, job_id: UUID) -> None:
    """Count the bytes of a job's samples and images, after some were deleted."""
    session.execute(update(Job).where(Job.id == job_id).values(sample_bytes=_kept_bytes(session, job_id)))


def _kept_bytes(session: Session, job_id: UUID) -> int:
    groups = select(func.coalesce(func.sum(Sample.bytes), 0)).where(Sample.job_id == job_id).scalar_subquery()
    images = select(func.coalesce(func.sum(func.length(Image.png)), 0)).join(JobImage).where(JobImage.job_id == job_id)
    return int(session.scalar(select(groups + images.scalar_subquery())) or 0)


def _warn_once(session: Session, job_id: UUID, step: int, max_bytes: int) -> None:
    first = update(Job).where(Job.id == job_id, ~Job.samples_dropped).values(samples_dropped=True).returning(Job.id)
    if session.scalar(first) is not None:
        message = f"samples from step {step} on exceed samples.max_megabytes ({max_bytes / 1e6:g} MB) and are not kept"
        events.add(session, job_id, "warning", actor="scheduler", message=message)
