"""Database connections of requests: users with their own bounds take fewer than the pool has."""

from api import deps, live, middleware, tables
from jobs import db

IN_THE_BACKGROUND = 5  # the sweep, messages to webhooks, and what else works beside the requests


def test_all_users_of_the_pool_get_a_connection() -> None:
    assert deps.SESSIONS + middleware.LOOKUPS + live.READERS + tables.READERS + IN_THE_BACKGROUND <= db.CONNECTIONS
