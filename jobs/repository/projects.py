"""Projects that jobs are grouped by."""

from sqlalchemy.orm import Session

from jobs.models import Project


def exists(session: Session, slug: str) -> bool:
    """Whether there is a project of this name."""
    return session.get(Project, slug) is not None
