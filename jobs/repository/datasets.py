"""Datasets: add each content once, list, and find the jobs that use one."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import Text, cast, delete, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from calibrl.schemas import JobStatus
from jobs.errors import FieldError, Invalid, NotFound
from jobs.models import Dataset, Job, JobDataset


def add(session: Session, values: dict[str, Any]) -> tuple[Dataset, bool]:
    """Add a dataset, or find the existing one with the same content in the project. Return it, and True if it is
    new."""
    new = session.scalar(insert(Dataset).values(values).on_conflict_do_nothing().returning(Dataset.id))
    if new is not None:
        return session.get_one(Dataset, new), True
    same = find(session, values)
    if same is None:  # deleted between the two statements
        return add(session, values)
    return same, False


def find(session: Session, values: dict[str, Any]) -> Dataset | None:
    """Return the dataset of a project with the content of `values`: the hash of a file, and how it is read; or the
    location on the hub.
    """
    names = ("sha256", "columns", "read_as") if values.get("sha256") else ("hub",)
    content = [getattr(Dataset, name) == values[name] for name in names]
    return session.scalar(select(Dataset).where(Dataset.project == values["project"], *content))


def get(session: Session, dataset_id: UUID, projects: frozenset[str] | None = None) -> Dataset:
    """Return a dataset of one of these projects (None: of any).

    Raises:
        NotFound: no such dataset.
    """
    return _found(session.get(Dataset, dataset_id), dataset_id, projects)


def lock(session: Session, dataset_id: UUID, projects: frozenset[str] | None = None) -> Dataset:
    """Lock a dataset, so that no job can start to use it until the transaction ends.

    Raises:
        NotFound: no such dataset.
    """
    query = select(Dataset).where(Dataset.id == dataset_id).with_for_update()
    return _found(session.scalar(query), dataset_id, projects)


def rename(session: Session, dataset: Dataset, name: str) -> None:
    """Set the name of a locked dataset."""
    dataset.name = name
    session.flush()


def lock_shared(session: Session, ids: Collection[UUID]) -> dict[UUID, Dataset]:
    """Share-lock the datasets of these ids that exist, so that they cannot be deleted until the transaction ends."""
    if not ids:
        return {}
    query = select(Dataset).where(Dataset.id.in_(ids)).order_by(Dataset.id).with_for_update(read=True)
    return {row.id: row for row in session.scalars(query)}


def page(
    session: Session,
    *,
    projects: frozenset[str] | None,
    project: str | None,
    after: UUID | None,
    limit: int,
    user: str | None = None,
    q: str | None = None,
    files: bool = False,
    oldest_first: bool = False,
) -> list[Dataset]:
    """Return datasets of these projects (None: of all), newest first unless `oldest_first`, starting after `after`.

    Args:
        user: only datasets that this user has added.
        q: only datasets with this text in the name, or with an id that begins with it.
        files: only uploaded datasets.

    Raises:
        Invalid: the dataset `after` does not exist.
    """
    age = (Dataset.created_at, Dataset.id)
    query = select(Dataset).order_by(*(age if oldest_first else (key.desc() for key in age))).limit(limit)
    if files:
        query = query.where(Dataset.hub.is_(None))
    if projects is not None:
        query = query.where(Dataset.project.in_(projects))
    if project is not None:
        query = query.where(Dataset.project == project)
    if user is not None:
        query = query.where(Dataset.user == user)
    if q is not None:
        begins = cast(Dataset.id, Text).startswith(q.lower(), autoescape=True)
        query = query.where(Dataset.name.icontains(q, autoescape=True) | begins)
    if after is not None:
        last = session.get(Dataset, after)
        if last is None or not (projects is None or last.project in projects):
            raise Invalid(
                "The start of the page does not exist.", (FieldError("after", f"dataset {after} does not exist"),)
            )
        place, seen = tuple_(*age), tuple_(last.created_at, last.id)
        query = query.where(place > seen if oldest_first else place < seen)
    return list(session.scalars(query))


def row_counts(session: Session, ids: Collection[UUID]) -> dict[UUID, int]:
    """Return the number of rows by dataset, for those whose rows are known."""
    query = select(Dataset.id, Dataset.rows).where(Dataset.id.in_(ids), Dataset.rows.is_not(None))
    return {row.id: row.rows for row in session.execute(query)}


def preview(session: Session, dataset_id: UUID) -> list[dict[str, Any]]:
    """Return the first rows of a dataset in the form of `PreviewRow`."""
    return list(session.scalars(select(Dataset.preview).where(Dataset.id == dataset_id)).one())


def users(session: Session, dataset_id: UUID) -> list[UUID]:
    """Return the unfinished jobs that use a dataset, oldest first."""
    query = (
        select(Job.id)
        .join(JobDataset)
        .where(JobDataset.dataset_id == dataset_id, Job.status.not_in(JobStatus.final_ones()))
    )
    return list(session.scalars(query.order_by(Job.created_at, Job.id)))


def remove(session: Session, dataset_id: UUID) -> None:
    """Delete a dataset. The jobs that used it stay."""
    session.execute(delete(Dataset).where(Dataset.id == dataset_id))


def _found(dataset: Dataset | None, dataset_id: UUID, projects: frozenset[str] | None) -> Dataset:
    if dataset is None or not (projects is None or dataset.project in projects):
        raise NotFound(f"There is no dataset {dataset_id}.")
    return dataset
