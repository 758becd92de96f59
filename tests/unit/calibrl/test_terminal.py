"""What the command line draws."""

from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console, RenderableType

from calibrl import terminal
from jobs.schemas import Job

from .conftest import job as job_json


def drawn(what: RenderableType) -> str:
    console = Console(width=160, force_terminal=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def a_job(**changes: Any) -> Job:
    return Job.model_validate(job_json(**changes))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([1.0], "▁"),
        ([2.0, 2.0], "▁▁"),
        ([0.0, 7.0], "▁█"),
        ([0.0, float("nan"), 7.0, float("inf")], "▁·█·"),
        ([float("nan")], "·"),
        ([100.0] + [0.0] * 40, "▁" * 40),
    ],
)
def test_sparkline(values: list[float], line: str) -> None:
    assert terminal.sparkline(values) == line


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (185, "3m05s"), (7800, "2h10m"), (273600, "3d04h")]
)
def test_duration(seconds: float, text: str) -> None:
    assert terminal.duration(seconds) == text


def test_a_log_cannot_steer_the_terminal() -> None:
    assert terminal.plain("a\x1b[2Jb\x07\x9b\tc\r\nd\re é 图") == "a\ufffd[2Jb\ufffd\ufffd\tc\nd\ne é 图"


def test_markup_in_a_name_is_text() -> None:
    assert "[red]x[/red]" in drawn(terminal.job_table([a_job(name="[red]x[/red]")]))


def test_live_view_shows_the_latest_values_of_what_the_job_reports() -> None:
    rows = {2: {"reward/mean": 0.25, "loss/other": 777777.0}, 1: {"reward/mean": 0.5, "exploration/entropy": "NaN"}}
    text = drawn(terminal.live_view(a_job(message="waiting for \x1b memory"), rows))
    assert "3/10" in text
    assert "0.25" in text  # step 2's, whichever came first
    assert "█▁" in text
    assert "nan" in text
    assert "777777" not in text
    assert "\x1b" not in text


def test_a_jobs_page_leaves_out_what_it_has_not() -> None:
    text = drawn(terminal.job_page(a_job(labels={"team": "vision"}), [], []))
    assert "team=vision" in text
    assert "Checkpoints" not in text
    assert "message" not in text


def test_run_time_ends_with_the_job() -> None:
    assert terminal.run_time(a_job(finished_at="2026-01-01T00:01:10Z")) == "1m05s"
    assert terminal.run_time(a_job(started_at=None)) == ""
    assert terminal.run_time(a_job(started_at=datetime.now(UTC).isoformat())) == "0s"
