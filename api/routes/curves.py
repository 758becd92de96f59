"""Curves of one or several jobs, with at most a given number of points."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from api.bucket_width import Width, chosen_width, refusal
from api.deps import CurrentCaller, Db
from api.metric_names import ESCAPES, KNOWN_NAMES, listed, unescaped
from api.tables import CONTENT, ChosenFormat, streamed
from calibrl.schemas import MAX_STEP, Curves
from jobs.repository import curves, jobs

MOST_JOBS, MOST_NAMES = 32, 64
MOST_BUCKETS = 250_000  # per answer: about 30 MB of JSON
COLUMNS = {
    "job_id": str,
    "name": str,
    "start": int,
    "first_step": int,
    "last_step": int,
    "ts": datetime,
    "count": int,
    "non_finite": int,
    "min": float,
    "max": float,
    "mean": float,
    "last": float,
}
router = APIRouter(prefix="/metrics", tags=["runs"])
Jobs = Annotated[str, Query(max_length=2000, description=f"Ids of jobs, separated by commas; at most {MOST_JOBS}.")]
Names = Annotated[
    str,
    Query(
        max_length=8000,
        description=f"Names, separated by commas; at most {MOST_NAMES}. A name that ends in * matches as a prefix "
        f"(`%2A`: that character). {ESCAPES} {KNOWN_NAMES}",
        examples=["reward/*,loss/total"],
    ),
]
Points = Annotated[int, Query(ge=1, le=5000, description="Maximum number of buckets per curve.")]
FromStep = Annotated[int, Query(ge=0, le=MAX_STEP, description="First step; the bucket that contains it is included.")]
ToStep = Annotated[
    int | None,
    Query(ge=0, le=MAX_STEP, description="Last step; the bucket that contains it is included. None: to the end."),
]


@router.get("", response_model=Curves, responses={200: {"content": CONTENT}})
def compare_metrics(
    session: Db,
    caller: CurrentCaller,
    format: ChosenFormat,
    jobs: Jobs,
    names: Names,
    points: Points = 1000,
    from_step: FromStep = 0,
    to_step: ToStep = None,
    width: Width = None,
) -> Response:
    """Return curves in buckets, each with minimum, maximum, mean and last value, so that no spike is lost.

    The width of a bucket is the smallest power of two that gives at most `points` buckets. Each bucket starts at a
    multiple of the width. Buckets therefore change only if the width doubles, or if a job returns to an earlier step.
    JSON has lists per curve; CSV and Parquet have a row per bucket.
    """
    ids = _job_ids(session, jobs, caller.projects)
    chosen = _chosen_names(session, ids, names)
    of_each = {id: curves.last_step(session, id) for id in ids}
    newest = max((step for step in of_each.values() if step is not None), default=None)
    last = to_step if to_step is not None else max(newest or 0, from_step)
    if last < from_step:
        raise refusal("to_step", "is before from_step")
    width = chosen_width(width, from_step, last, points)
    if (last // width - from_step // width + 1) * len(ids) * len(chosen) > MOST_BUCKETS:
        of_width = f"{len(chosen)} metrics of {len(ids)} jobs in so many buckets are more than {MOST_BUCKETS} in all"
        raise refusal("points", f"{of_width}: ask for fewer points, names or jobs, or a greater width")
    span = {"width": width, "first": from_step, "last": last}
    if format == "json":
        series = [text for id in ids for text in curves.buckets_json(session, id, chosen, newest=of_each[id], **span)]
        body = f'{{"width":{width},"last_step":{json.dumps(newest)},"series":[{",".join(series)}]}}'
        return Response(body, media_type="application/json")
    rows = [row for id in ids for row in curves.buckets(session, id, chosen, newest=of_each[id], **span)]
    return streamed(format, "curves", COLUMNS, [[(str(row.job_id), *row[1:]) for row in rows]])


def _job_ids(session: Session, value: str, projects: frozenset[str] | None) -> list[UUID]:
    ids = []
    for text in listed(value):
        try:
            ids.append(UUID(text))
        except ValueError:
            raise refusal("jobs", f"{text[:50]!r} is not a job id") from None
    if not 0 < len(ids) <= MOST_JOBS:
        raise refusal("jobs", f"names {len(ids)} jobs; give 1 to {MOST_JOBS}")
    return jobs.require_visible(session, ids, projects)


def _chosen_names(session: Session, ids: Sequence[UUID], value: str) -> list[str]:
    names = listed(value)
    families = tuple(unescaped(name[:-1]) for name in names if name.endswith("*"))
    chosen = {unescaped(name) for name in names if not name.endswith("*")}
    if families:
        known = (row.name for id in ids for row in curves.names(session, id))
        chosen |= {name for name in known if name.startswith(families)}
    if len(chosen) > MOST_NAMES or not names:
        raise refusal("names", f"matches {len(chosen)} metrics; give 1 to {MOST_NAMES}")
    return sorted(chosen)
