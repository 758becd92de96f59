"""Names of metrics that runs of the tests report, compared with the registry."""

from collections.abc import Iterator
from typing import Any

import pytest

from calibrl_core.metrics import look_up
from calibrl_core.report import EventFile


@pytest.fixture(autouse=True)
def registered_metrics(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test whose run reports a metric that no entry of the registry describes."""
    emit = EventFile.emit
    unknown: set[str] = set()

    def checked(self: EventFile, type: str, **fields: Any) -> None:
        if type == "metrics":
            unknown.update(name for name in fields["values"] if look_up(name) is None)
        emit(self, type, **fields)

    monkeypatch.setattr(EventFile, "emit", checked)
    yield
    assert unknown == set(), "add a Metric to a family of calibrl_core/metrics"
