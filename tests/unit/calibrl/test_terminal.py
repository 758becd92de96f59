"""Tables and live view of the command line."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console, RenderableType

from calibrl.schemas import Job, JobStatus, Project, QueueEntry, Usage, Worker, WorkerStatus
from calibrl.views import terminal
from calibrl_core.metrics import describe

from .conftest import entry as entry_json
from .conftest import job as job_json
from .conftest import machine as machine_json
from .conftest import project as project_json


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


def test_live_view_shows_the_latest_reported_values() -> None:
    rows: dict[int, dict[str, float | str]] = {
        2: {"reward/mean": 0.25, "loss/other": 777777.0},
        1: {"reward/mean": 0.5, "exploration/entropy": "NaN"},
    }
    text = drawn(terminal.live_view(a_job(message="waiting for \x1b memory"), rows))
    assert "3/10" in text
    assert "0.25" in text  # step 2's, whichever came first
    assert "█▁" in text
    assert "nan" in text
    assert "777777" not in text
    assert "nats/token" in text
    assert "\x1b" not in text


def test_every_watched_metric_has_a_short_name() -> None:
    assert [name for name in terminal.WATCHED if not describe(name).label] == []


def test_a_jobs_page_leaves_out_empty_fields() -> None:
    text = drawn(terminal.job_page(a_job(labels={"team": "vision"}), None, [], []))
    assert "team=vision" in text
    assert "Checkpoints" not in text
    assert "message" not in text


def test_run_time_is_that_of_the_attempts() -> None:
    """It has run for 65 s, and ended an hour after its start."""
    assert terminal.run_time(a_job(finished_at="2026-01-01T01:00:05Z", ended_seconds=65.0)) == "1m05s"
    assert terminal.run_time(a_job(started_at=None)) == ""
    now = datetime.now(UTC).isoformat()
    assert terminal.run_time(a_job(ended_seconds=65.0, attempt_started_at=now)) == "1m05s"
    assert terminal.run_time(a_job(status="paused")) == ""  # no worker runs it
    assert terminal.run_time(a_job(status="queued", attempt=1)) == ""


def test_every_status_has_a_colour() -> None:
    assert terminal.STYLES.keys() == set(JobStatus)
    assert terminal.MACHINE_STYLES.keys() == set(WorkerStatus)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "now"),
        (1, "now"),
        (30, "in under a minute"),
        (70, "in about 1 min"),
        (200, "in about 3 min"),
        (2 * 3600 + 60, "in about 2 h"),
        (3 * 86400, "in about 3 days"),
    ],
)
def test_a_start_in_words(seconds: float, words: str) -> None:
    assert terminal.until(datetime.now(UTC) + timedelta(seconds=seconds)) == words
    assert terminal.until(None) == "unknown"


@pytest.mark.parametrize(("share", "bar"), [(0, "░" * 10), (0.5, "█████░░░░░"), (1, "█" * 10), (7, "█" * 10)])
def test_meter(share: float, bar: str) -> None:
    assert terminal.meter(share) == bar


def test_the_queue_shows_position_start_needs_and_reason() -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=180)).isoformat()
    first = QueueEntry.model_validate(entry_json(gpus=2, position=1, estimated_start=soon))
    paused = QueueEntry.model_validate(entry_json(status="paused", position=None, reason="paused", explanation="held"))
    lines = drawn(terminal.queue_table([first, paused])).splitlines()
    assert all(part in lines[1] for part in ("1 ", "2 GPUs", "in about 3 min", "waiting for a free CPU slot"))
    assert all(part in lines[2] for part in ("– ", "CPU slot", "held"))
    assert terminal.waits_text(first).startswith("position 1: waiting for a free CPU slot; starts")
    assert terminal.waits_text(paused) == "held"
    several = QueueEntry.model_validate(entry_json(machines=2, gpus=8))
    assert "2 × 8 GPUs" in drawn(terminal.queue_table([several]))


def test_machines_show_the_job_of_each_slot() -> None:
    machine = Worker.model_validate(machine_json())
    text = drawn(terminal.worker_table([machine]))
    cpu, busy, cleaning = text.splitlines()[1:]
    assert all(part in cpu for part in ("gpu-1", "site=b", "online", "2 CPU slots", "22222222"))
    assert "11111111" not in cpu  # it runs on the GPU
    assert all(part in busy for part in ("GPU 0 H100", "█████░░░░░ 50 %", "████████░░ 64.0 of 80 GiB", "11111111"))
    assert all(part in cleaning for part in ("GPU 1", "0 %", "memory not free yet"))
    assert terminal.machine_line(machine) == "gpu-1: online, runs 2 jobs"
    lost = machine.model_copy(update={"status": WorkerStatus.LOST, "heartbeat_at": datetime.now(UTC), "jobs": []})
    assert terminal.machine_line(lost) == "gpu-1: lost (last heartbeat 0s ago), runs 0 jobs"


def test_projects_and_usage() -> None:
    text = drawn(terminal.project_table([Project.model_validate(project_json(max_gpus=4, budget_slot_hours=1500.0))]))
    assert text.splitlines()[1].split() == ["vision", "1", "4", "any", "1,500", "any", "any"]
    used = {"project": "vision", "user": "ann", "slot_hours": 12.345, "gpu_hours": 3, "budget_slot_hours": None}
    text = drawn(terminal.usage_table([Usage.model_validate(used)]))
    assert text.splitlines()[1].split() == ["vision", "ann", "12.35", "3.00", "none"]
