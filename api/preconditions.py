"""`ETag` and `If-Match`: two people who edit one thing at the same time do not overwrite each other's changes.

The tag is that of the fields that people edit. So progress of a job does not change it.
"""

import json
from collections.abc import Collection
from hashlib import sha256
from typing import Annotated, Any, Literal

from fastapi import Header, Response
from pydantic import BaseModel

from calibrl.schemas import AlertRuleSettings, ProjectSettings
from jobs.errors import PreconditionFailed

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=1000,
        description="ETag of the state that the change is meant for. If it differs by now, nothing changes (412). "
        "None: any state.",
    ),
]
IfNoneMatch = Annotated[
    Literal["*"] | None,
    Header(alias="If-None-Match", description="`*`: only if it does not exist yet (412 if it does)."),
]
EDITED = {
    "job": ("name", "labels", "notes", "priority"),
    "project": tuple(ProjectSettings.model_fields),
    "user": ("admin", "active"),
    "alert rule": tuple(AlertRuleSettings.model_fields),
    "webhook": ("url", "events"),
    "dataset": ("name",),
}


def set_tag(response: Response, record: BaseModel, fields: Collection[str]) -> None:
    """Add the tag of a record to its answer."""
    response.headers["ETag"] = tag(record, fields)


def tag(record: Any, fields: Collection[str]) -> str:
    """Return the tag of these fields of a record or row."""
    values = [getattr(record, field) for field in fields]
    return f'"{sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:32]}"'


def check(if_match: str | None, row: Any, fields: Collection[str]) -> None:
    """Check the condition of a change against the locked row.

    Raises:
        PreconditionFailed: the row has changed since it was read, or does not exist.
    """
    if if_match is None:
        return
    given = {one.strip() for one in if_match.split(",")}
    if row is None or not given & {"*", tag(row, fields)}:
        raise PreconditionFailed("It was changed since you read it: read it again, and repeat your change.")
