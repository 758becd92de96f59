"""The identity of the database."""

from sqlalchemy import text
from sqlalchemy.orm import Session

# A dump that is restored has other ids of database and tables, also in the same server. A server that was restored to a
# point in time, or has taken over from another one, has another timeline.
_QUERY = """
SELECT concat_ws('-', system_identifier, timeline_id, base.oid, 'projects'::regclass::oid) AS identity,
       pg_current_wal_lsn() - '0/0'::pg_lsn AS position
FROM pg_control_system() system, pg_control_checkpoint() checkpoint, pg_database base
WHERE base.datname = current_database()
"""


def of_database(session: Session) -> tuple[str, int]:
    """Return the identity of the database, and the bytes of its write-ahead log so far."""
    row = session.execute(text(_QUERY)).one()
    return row.identity, int(row.position)
