"""The limits that the database puts on this service's transactions."""

import pytest
from sqlalchemy import text

from jobs import db
from jobs.settings import get_settings

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("lease", ["1", "30", "3600"])
def test_only_a_stuck_process_loses_its_transaction(lease: str, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a CPU was seen to pause for more than 3 s, the limit that a lease of 1 s once led to."""
    monkeypatch.setenv("CALIBRL_LEASE_SECONDS", lease)
    get_settings.cache_clear()
    names = ("idle_in_transaction_session_timeout", "statement_timeout", "lock_timeout")
    with db.session_scope() as session:
        assert [session.scalar(text(f"SHOW {name}")) for name in names] == ["30s", "30s", "10s"]
        if (
            int(session.scalar(text("SHOW server_version_num")) or 0) >= 170_000
        ):  # all statements together: more than one pause of the longest allowed length
            assert session.scalar(text("SHOW transaction_timeout")) == "1min"
