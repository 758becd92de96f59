"""All metrics of a job in pages, for answers that are sent while they are read."""

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from jobs.db import session_scope
from jobs.repository import metrics

PAGE = 2000  # steps
Step = tuple[int, datetime, dict[str, float]]


def pages(
    job_id: UUID, names: list[str] | None = None, after_step: int = -1, max_steps: int | None = None
) -> Iterator[list[Step]]:
    """Yield pages of (step, time, values) after a step, ascending, up to a total number of steps.

    Each page uses a short session: a slow client holds no database connection. Rows written meanwhile are included.
    """
    left = max_steps
    while left is None or left > 0:
        limit = PAGE if left is None else min(PAGE, left)
        with session_scope() as session:
            rows = metrics.page(session, job_id, names=names, after_step=after_step, limit=limit)
        if rows:
            yield [(step, ts, {name: float(value) for name, value in values.items()}) for step, ts, values in rows]
            after_step = rows[-1][0]
        if len(rows) < limit:
            return
        left = None if left is None else left - len(rows)
