"""Views of the dashboard that users saved by name."""

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.models import SavedView, User


def of_user(session: Session, user: str) -> list[SavedView]:
    """Return the views of a user, by name."""
    return list(session.scalars(select(SavedView).where(SavedView.user == user).order_by(SavedView.name)))


def count_others(session: Session, user: str, name: str) -> int:
    """Return the number of views of a user with other names. Locks the user, so that the number stays until the
    transaction ends."""
    session.execute(select(User.name).where(User.name == user).with_for_update(key_share=True))
    others = select(func.count()).where(SavedView.user == user, SavedView.name != name)
    return session.scalar(others) or 0


def put(session: Session, user: str, name: str, address: str) -> SavedView:
    """Store a view. It replaces one of the same name."""
    changed = {"address": address, "created_at": func.clock_timestamp()}
    statement = insert(SavedView).values(user=user, name=name, address=address)
    replacing = statement.on_conflict_do_update(index_elements=["user", "name"], set_=changed)
    found: SavedView | None = session.scalar(
        replacing.returning(SavedView), execution_options={"populate_existing": True}
    )
    assert found is not None
    return found


def remove(session: Session, user: str, name: str) -> bool:
    """Remove a view. Return False if there is none of this name."""
    gone = delete(SavedView).where(SavedView.user == user, SavedView.name == name).returning(SavedView.name)
    return session.scalar(gone) is not None
