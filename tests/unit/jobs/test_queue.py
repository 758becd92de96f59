import socket

import pytest
from structlog.testing import capture_logs

from jobs import queue
from jobs.settings import get_settings


def test_a_broker_that_is_away_is_only_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: refuses every connection
        monkeypatch.setenv("REDIS_URL", f"redis://:hush@127.0.0.1:{closed.getsockname()[1]}/0")
        get_settings.cache_clear()
        with capture_logs() as logs:
            queue.wake(0)
    get_settings.cache_clear()
    (line,) = logs
    assert (line["event"], line["queue"]) == ("wake-up not sent", "cpu")
    assert "hush" not in str(line)
