"""The event file: whole lines, numbers that JSON can't say, images once."""

import errno
import json
import math
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.report import EventFile, is_disk_full


def lines(folder: Path) -> Any:
    return (folder / "events.jsonl").read_text().splitlines()


def test_numbers_that_json_cannot_express(tmp_path: Path) -> None:
    EventFile(tmp_path).emit(
        "metrics", step=1, values={"loss/total": math.nan, "reward/mean": -math.inf, "reward/std": [math.inf, 1.5]}
    )
    event = json.loads(lines(tmp_path)[0])
    assert event["values"] == {"loss/total": "NaN", "reward/mean": "-Infinity", "reward/std": ["Infinity", 1.5]}
    assert event["type"] == "metrics"


def test_half_a_line_left_by_a_killed_run_spoils_only_itself(tmp_path: Path) -> None:
    first = EventFile(tmp_path)
    first.emit("start", step=0)
    first.close()
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"type": "metr')
    second = EventFile(tmp_path)
    second.emit("start", step=7)
    kept = [json.loads(line) for line in lines(tmp_path) if line.endswith("}")]
    assert [event["step"] for event in kept] == [0, 7]
    assert len(lines(tmp_path)) == 3


def test_an_image_is_kept_once(tmp_path: Path) -> None:
    report = EventFile(tmp_path)
    assert report.save_image(b"png") == report.save_image(b"png")
    (path,) = (tmp_path / "images").iterdir()
    assert path.read_bytes() == b"png"


def raised_from(cause: Any) -> Any:
    error = ValueError("a model can't be written")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (Exception("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (raised_from(OSError(errno.ENOSPC, "No space left on device")), True),
        (raised_from(KeyError("28")), False),
    ],
)
def test_disk_full_errors_are_recognised(error: Any, full: bool) -> None:
    assert is_disk_full(error) is full
