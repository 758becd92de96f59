"""Runs migrations on the database of the settings. A lock makes concurrent runs wait for each other."""

from alembic import context
from sqlalchemy import create_engine, pool, text

from jobs.models import Base
from jobs.settings import get_settings

_LOCK = 0x63616C69  # arbitrary, the same for all migrations


def run() -> None:
    """Apply what was asked for, in one transaction."""
    engine = create_engine(
        get_settings().need("database_url"), poolclass=pool.NullPool, connect_args={"connect_timeout": 10}
    )
    with engine.connect() as connection, connection.begin():
        connection.execute(text("SET LOCAL lock_timeout = '60s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("migrations run against a database: set DATABASE_URL and leave out --sql")
run()
