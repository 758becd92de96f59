"""Visits of prompts in runs."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Double,
    Integer,
    Row,
    Subquery,
    Text,
    and_,
    cast,
    column,
    func,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by, insert
from sqlalchemy.orm import Session

from calibrl.schemas import PromptList
from jobs.models import Job, StepVisits

MAX_RUNS = 50  # other runs that a prompt lists
FEWEST = 2  # visits before a prompt is in the lists "only_expert" and "never_moved"


def put(session: Session, job_id: UUID, rows: Sequence[dict[str, Any]]) -> None:
    """Store the visits of steps. They replace those of an earlier attempt. rows: columns of `StepVisits` but
    `job_id`."""
    if not rows:
        return
    latest = {row["step"]: {"job_id": job_id, **row} for row in rows}
    statement = insert(StepVisits)
    changed = {name: statement.excluded[name] for name in rows[0] if name != "step"}
    statement = statement.on_conflict_do_update(index_elements=[StepVisits.job_id, StepVisits.step], set_=changed)
    session.execute(statement, list(latest.values()))


def page(session: Session, job_id: UUID, which: PromptList, *, after: str, limit: int) -> list[Row[Any]]:
    """Return prompts of a job with the columns of `PromptLife`, by digest, beginning after the digest `after`."""
    lives = _lives(job_id)
    query = select(lives).where(lives.c.prompt > after, _belongs(lives, which)).order_by(lives.c.prompt).limit(limit)
    return list(session.execute(query))


def counts(session: Session, job_id: UUID) -> dict[str, int]:
    """Return the number of prompts of a job in each list, with the columns of `PromptCounts`."""
    lives = _lives(job_id)
    names: tuple[PromptList, ...] = ("all", "only_expert", "lost", "never_moved")
    query = select(*(func.count().filter(_belongs(lives, name)).label(name) for name in names))
    return {name: int(count) for name, count in zip(names, session.execute(query).one(), strict=True)}


def of_prompt(session: Session, job_id: UUID, prompt: str) -> list[Row[Any]]:
    """Return the visits of a prompt in a job by step: `prompt_id`, `expert` and the columns of `Visit`."""
    each = _each(StepVisits.job_id == job_id, StepVisits.prompts.contains([prompt]))
    return list(session.execute(select(each).where(each.c.prompt == prompt).order_by(each.c.step)))


def runs_with(
    session: Session, prompt: str, *, visible_projects: Collection[str] | None, besides: UUID
) -> list[Row[Any]]:
    """Return the newest jobs with a prompt, with the columns of `PromptRun`. visible_projects: None: all."""
    seen = true() if visible_projects is None else Job.project.in_(visible_projects)
    found = (
        select(StepVisits.job_id)
        .join(Job, Job.id == StepVisits.job_id)
        .where(StepVisits.prompts.contains([prompt]), Job.id != besides, seen)
        .group_by(StepVisits.job_id, Job.created_at)
        .order_by(Job.created_at.desc())
        .limit(MAX_RUNS)
        .subquery()
    )
    each = _each(StepVisits.job_id.in_(select(found.c.job_id)), StepVisits.prompts.contains([prompt]))
    in_order = func.array_agg(aggregate_order_by(_share(each), each.c.step))
    query = (
        select(
            Job.id.label("job_id"),
            Job.name,
            func.count().label("visits"),
            func.count().filter(each.c.passed > 0).label("solved"),
            in_order[1].label("first_share"),
            in_order[func.count()].label("last_share"),
        )
        .join(each, each.c.job_id == Job.id)
        .where(each.c.prompt == prompt)
        .group_by(Job.id)
        .order_by(Job.created_at.desc())
    )
    return list(session.execute(query))


def _each(*of: ColumnElement[bool]) -> Subquery:
    """Return one row per visit of the steps that the conditions select."""
    table = StepVisits
    lists = (table.prompts, table.ids, table.experts, table.passed, table.sizes, table.entropies, table.gaps)
    columns = {
        "prompt": Text,
        "prompt_id": Text,
        "expert": Boolean,
        "passed": Integer,
        "size": Integer,
        "entropy": Double,
        "gap": Double,
        "rareness": Double,
    }
    visit = func.unnest(*lists, table.rareness).table_valued(*(column(name, kind) for name, kind in columns.items()))
    visit = visit.render_derived(name="visit")
    return (
        select(table.job_id, table.step, *(visit.c[name] for name in columns)).join(visit, true()).where(*of).subquery()
    )


def _share(each: Subquery) -> ColumnElement[Any]:
    return cast(each.c.passed, Double) / func.nullif(each.c.size, 0)


def _lives(job_id: UUID) -> Subquery:
    """Return one row per prompt of a job."""
    each = _each(StepVisits.job_id == job_id)
    by_step = [func.array_agg(aggregate_order_by(value, each.c.step)) for value in (_share(each), each.c.entropy)]
    return (
        select(
            each.c.prompt,
            func.max(each.c.prompt_id).label("prompt_id"),
            func.count().label("visits"),
            func.count().filter(each.c.passed > 0).label("solved"),
            func.min(each.c.step).label("first_step"),
            func.max(each.c.step).label("last_step"),
            func.bool_or(each.c.expert).label("expert"),
            by_step[0].label("shares"),
            by_step[1].label("entropies"),
            by_step[0][func.count()].label("last_share"),
            func.min(_share(each)).label("lowest"),
            func.max(_share(each)).label("highest"),
        )
        .group_by(each.c.prompt)
        .subquery()
    )


def _belongs(lives: Subquery, which: PromptList) -> ColumnElement[bool]:
    again = lives.c.visits >= FEWEST
    match which:
        case "only_expert":
            return and_(again, lives.c.expert, lives.c.solved == 0)
        case "lost":
            return and_(lives.c.solved > 0, lives.c.last_share == 0)
        case "never_moved":
            return and_(again, lives.c.lowest == lives.c.highest)
        case "all":
            return true()
