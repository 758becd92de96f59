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

SEARCH_SECONDS = 5  # that a text is looked for


def insert(
    session: Session, job_id: UUID, step: int, group: dict[str, Any], max_bytes: int, *, image_bytes: int = 0
) -> bool:
    """Keep a group, unless the job's samples and their images would then exceed `max_bytes`.

    Returns whether it was kept; the first drop is said by an event. Put the group's images after it, if it was kept;
    `image_bytes` is the size of those that the job doesn't show yet.
    """
    size = len(json.dumps(group))
    if _kept_bytes(session, job_id) + size + image_bytes > max_bytes:
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
    """Their mean; None where one is not a finite number, which JSON says as a string, or where there is none."""
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
    """Groups in the order they came in, without their contents: of one step or of all, with `text` in prompt, answer,
    expert or a completion, and with a mean reward within bounds.

    Raises:
        Invalid: looking for the text took longer than a request may.
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
        session.execute(select(func.set_config("statement_timeout", f"{SEARCH_SECONDS}s", True)))
    try:
        return list(session.scalars(query.order_by(Sample.id).limit(limit)))
    except OperationalError as error:
        if text is None or not isinstance(error.orig, QueryCanceled):
            raise
        why = f"takes longer than {SEARCH_SECONDS} s over all groups: name a step, or bounds of the reward, as well"
        raise Invalid("The search takes too long.", (FieldError("q", why),)) from error


def _says(text: str) -> ColumnElement[bool]:
    """Whether a group has the text somewhere, in whatever case."""
    elements = func.jsonb_array_elements(Sample.group["completions"])
    each = elements.table_valued(column("value", JSONB), name="each").render_derived()
    completions = select(true()).select_from(each).where(each.c.value["text"].astext.icontains(text, autoescape=True))
    said = [Sample.group[name].astext.icontains(text, autoescape=True) for name in ("prompt", "answer", "expert")]
    return or_(Sample.prompt_id.icontains(text, autoescape=True), *said, completions.exists())


def get(session: Session, job_id: UUID, sample_id: int) -> Sample:
    """One group, whole.

    Raises:
        NotFound: the job has none of this id.
    """
    query = select(Sample).where(Sample.id == sample_id, Sample.job_id == job_id).options(undefer(Sample.group))
    sample = session.scalar(query)
    if sample is None:
        raise NotFound(f"Job {job_id} has no sample {sample_id}.")
    return sample


def completions(
    session: Session, job_id: UUID, *, first_step: int, last_step: int | None, limit: int
) -> Iterator[Row[Any]]:
    """Completions of some steps, one by one and without their tokens: `sample_id`, `step`, `prompt_id`, `answer` (the
    truth), `place` (in its group, from 1), `text`, and as JSON tells them `reward` and `passed`."""
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
    """How many completions are kept of some steps."""
    query = select(func.coalesce(func.sum(Sample.size), 0)).where(*_of_steps(job_id, first_step, last_step))
    return int(session.scalar(query) or 0)


def _of_steps(job_id: UUID, first: int, last: int | None) -> list[ColumnElement[bool]]:
    bounds = [Sample.job_id == job_id, Sample.step >= first]
    return bounds if last is None else [*bounds, Sample.step <= last]


def _kept_bytes(session: Session, job_id: UUID) -> int:
    groups = select(func.coalesce(func.sum(Sample.bytes), 0)).where(Sample.job_id == job_id).scalar_subquery()
    images = select(func.coalesce(func.sum(func.length(Image.png)), 0)).join(JobImage).where(JobImage.job_id == job_id)
    return int(session.scalar(select(groups + images.scalar_subquery())) or 0)


def _warn_once(session: Session, job_id: UUID, step: int, max_bytes: int) -> None:
    first = update(Job).where(Job.id == job_id, ~Job.samples_dropped).values(samples_dropped=True).returning(Job.id)
    if session.scalar(first) is not None:
        message = (
            f"samples from step {step} on do not fit in samples.max_megabytes ({max_bytes / 1e6:g} MB) and are not kept"
        )
        events.add(session, job_id, "warning", actor="scheduler", message=message)
