"""The event file on a full disk, which only a mount by another process can provide."""

import json
import os
from typing import Any

import pytest

from calibrl_core.report import EventFile, is_disk_full


def test_on_a_full_disk_each_line_is_there_whole_or_not_at_all(small_disk: Any) -> None:
    disk = small_disk(64)
    report = EventFile(disk)
    written = 0
    with pytest.raises(OSError) as full:
        while True:
            report.emit("log", level="info", message="x" * 1500)
            written += 1
    assert is_disk_full(full.value)
    events = disk / "events.jsonl"
    assert len(events.read_text().splitlines()) == written > 20
    report.emit("error", reason="disk_full", message="short")  # the page that the last line began has room for it
    assert [json.loads(line)["type"] for line in events.read_text().splitlines()] == ["log"] * written + ["error"]


def test_on_a_full_disk_nothing_is_left_of_an_image(small_disk: Any) -> None:
    disk = small_disk(64)
    report = EventFile(disk)
    with pytest.raises(OSError, match="No space left"):
        report.save_image(os.urandom(100_000))
    assert list((disk / "images").iterdir()) == []
