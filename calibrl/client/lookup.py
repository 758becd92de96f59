"""Jobs and datasets by what people call them: `latest`, the beginning of an id, or a name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from calibrl.client.errors import CalibrlError
from calibrl.schemas import ApiKey, Dataset, JobSummary, Page

SEARCHED_PAGES = 20  # pages of 100 that are searched
NOT_FOUND = 404  # HTTP status of a name that nothing has
ID_LENGTH = 36
LATEST = "latest"


Item = TypeVar("Item", JobSummary, Dataset, ApiKey)


def find(text: str, kind: str, pages: Callable[[UUID | None], Page[Item]]) -> Item:
    """Return what `text` names: `latest`, the beginning of exactly one id, or the name of exactly one. `pages` returns
    the page after an id, newest first.

    Raises:
        CalibrlError: nothing has this name, or several have it.
    """
    if not text:
        raise CalibrlError(f"name a {kind}: its id, the beginning of the id, its name, or `{LATEST}`", status=NOT_FOUND)
    rows = _rows(pages)
    if text == LATEST:
        newest = next(rows, None)
        if newest is None:
            raise CalibrlError(f"there is no {kind} yet", status=NOT_FOUND)
        return newest
    by_id, by_name = list[Item](), list[Item]()
    for row in rows:
        if str(row.id).startswith(text.lower()):
            by_id.append(row)
        elif row.name == text:
            by_name.append(row)
    found: list[Item] = by_id + by_name
    if len(found) == 1:
        return found[0]
    if not found:
        raise CalibrlError(f"no {kind} has an id that begins with {text!r}, or this name", status=NOT_FOUND)
    both = "an id that begins with it, or this name" if by_id and by_name else ""
    what = both or ("an id that begins with it" if by_id else "this name")
    ids = ", ".join(str(row.id) for row in found[:3]) + (" ..." if len(found) > 3 else "")
    raise CalibrlError(f"{text!r}: {len(found)} {kind}s have {what}: give the whole id ({ids})", status=NOT_FOUND)


def _rows(pages: Callable[[UUID | None], Page[Item]]) -> Iterator[Item]:
    after = None
    for _ in range(SEARCHED_PAGES):
        page = pages(after)
        yield from page.data
        if not page.has_more:
            return
        after = page.data[-1].id


def is_id(text: object) -> bool:
    """Return if a value is a whole id, which needs no search."""
    if isinstance(text, UUID):
        return True
    try:
        return isinstance(text, str) and len(text) == ID_LENGTH and bool(UUID(text))
    except ValueError:
        return False


def with_ids(spec: Any, job: Callable[[str], UUID], dataset: Callable[[str], UUID]) -> Any:
    """Return a spec, or a part of one, in which `from_job`, `depends_on` and `dataset` have whole ids. `job` and
    `dataset` return the id that a text names. References to jobs of the same file, `@name`, stay.
    """
    if isinstance(spec, Mapping):
        return {key: _of_field(key, value, job, dataset) for key, value in spec.items()}
    if isinstance(spec, list | tuple):
        return [with_ids(one, job, dataset) for one in spec]
    return spec


def _of_field(key: str, value: Any, job: Callable[[str], UUID], dataset: Callable[[str], UUID]) -> Any:
    if key == "labels":
        return value
    look_up = {"from_job": job, "depends_on": job, "dataset": dataset}.get(key)
    if look_up is None:
        return with_ids(value, job, dataset)
    if isinstance(value, str):
        return _whole(value, look_up)
    if isinstance(value, Sequence):
        return [_whole(one, look_up) if isinstance(one, str) else one for one in value]
    return value


def _whole(text: str, look_up: Callable[[str], UUID]) -> str:
    return text if not text or text.startswith("@") or is_id(text) else str(look_up(text))
