"""Base class of all tables, and shared column types."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Enum, ForeignKey, MetaData, Text, TypeDecorator, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, mapped_column

from calibrl.schemas import DeliveryStatus, JobStatus, Reason, Role, StudyStatus, WebhookFormat, WorkerStatus
from jobs.postgres_text import storable


class SafeText(TypeDecorator[str]):
    """Text that can come from a model or a log. Characters that PostgreSQL rejects are replaced on writing."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else str(storable(value))


def text_enum(values: type[StrEnum], name: str) -> Enum:
    """Return an enum stored as checked text, so that a new member is a cheap migration."""
    return Enum(
        values,
        native_enum=False,
        length=32,
        create_constraint=True,
        name=name,
        values_callable=lambda members: [member.value for member in members],
    )


Timestamp = Annotated[datetime, mapped_column(DateTime(timezone=True))]
# Clock time instead of transaction start: rows that wait for a lock must sort after the rows they waited for.
CreatedAt = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())]
Serial = Annotated[int, mapped_column(BigInteger, primary_key=True, autoincrement=True)]
JobKey = Annotated[UUID, mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)]
JobRef = Annotated[UUID, mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))]


class Base(DeclarativeBase):
    """Base of all tables. Constraints have explicit names, so that migrations can refer to them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        str: SafeText,
        dict[str, Any]: JSONB(none_as_null=True),
        JobStatus: text_enum(JobStatus, "status"),
        Reason: text_enum(Reason, "reason"),
        DeliveryStatus: text_enum(DeliveryStatus, "status"),
        WebhookFormat: text_enum(WebhookFormat, "format"),
        Role: text_enum(Role, "role"),
        StudyStatus: text_enum(StudyStatus, "status"),
        WorkerStatus: text_enum(WorkerStatus, "status"),
    }
