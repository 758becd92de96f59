import socket

import pytest
from structlog.testing import capture_logs

from jobs import queue
from jobs.settings import get_settings


@pytest.mark.parametrize("accepts", [False, True])
def test_a_broker_that_is_away_or_silent_is_only_logged(monkeypatch: pytest.MonkeyPatch, accepts: bool) -> None:
    with socket.socket() as broker:
        broker.bind(("127.0.0.1", 0))
        if accepts:
            broker.listen()
        monkeypatch.setenv("REDIS_URL", f"redis://:hush@127.0.0.1:{broker.getsockname()[1]}/0")
        get_settings.cache_clear()
        with capture_logs() as logs:
            queue.wake({"w": 1})
    get_settings.cache_clear()
    (line,) = logs
    assert (line["event"], line["workers"]) == ("wake-ups not sent", ["w"])
    assert "hush" not in str(line)
