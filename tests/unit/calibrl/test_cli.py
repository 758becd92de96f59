"""The commands over real HTTP: what they print, their exit codes, and every error in one line on stderr."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from calibrl import cli, presets
from calibrl.commands import follow_job
from calibrl.schemas import job_spec_adapter
from calibrl.specfile import read_spec

from .conftest import (
    DATASET_ID,
    JOB_ID,
    JOB_PATH,
    OTHER_ID,
    Service,
    calibrl,
    dataset,
    entry,
    fault,
    job,
    page,
    problem,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_job, "POLL_SECONDS", 0.01)


def spec_file(folder: Path, text: str = "kind: train\nsteps: 10\ndata: {path: d.jsonl}\n") -> Path:
    file = folder / "spec.yaml"
    file.write_text(text)
    return file


def test_help_without_arguments_names_every_command() -> None:
    result = calibrl()
    assert result.exit_code == 0
    jobs_commands = (
        "submit",
        "presets",
        "jobs",
        "show",
        "watch",
        "logs",
        "cancel",
        "pause",
        "resume",
        "retry",
        "priority",
    )
    for command in (
        "up",
        "demo",
        *jobs_commands,
        "queue",
        "workers",
        "drain",
        "undrain",
        "projects",
        "usage",
        "latest",
    ):
        assert f" {command} " in result.stdout or f"`{command}`" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nope"], "No such command 'nope'"),
        (["submit"], "Missing argument 'FILE'"),
        (["jobs", "--status", "bad"], "--status"),
        (["jobs", "--nope"], "No such option: --nope"),
        (["up", "--port", "0"], "--port"),
        (["up", "--port", "x"], "--port"),
        (["presets", "nope"], "Invalid value for NAME: there is no preset 'nope'; `calibrl presets` lists them"),
        (["submit", "/nowhere.yaml"], "/nowhere.yaml: No such file or directory"),
        (["watch", ""], "name a job: its id, the beginning of the id, its name, or `latest`"),
    ],
)
def test_bad_usage_is_one_line(service: Service, arguments: list[str], says: str) -> None:
    assert says in fault(calibrl(*arguments), 2)


def test_submit_prints_the_id_and_sends_the_file_with_overrides(service: Service, tmp_path: Path) -> None:
    service.on("POST", "/v1/jobs", (201, job()))
    result = calibrl("submit", spec_file(tmp_path), "--set", "steps=20", "--set", "algorithm.negative_slope=0.3")
    assert (result.exit_code, result.stdout) == (0, f"{JOB_ID}\n")
    assert service.requests[0].body == {
        "kind": "train",
        "steps": 20,
        "data": {"path": str(tmp_path / "d.jsonl")},
        "algorithm": {"negative_slope": 0.3},
    }


def test_a_preset_is_listed_printed_and_submitted(service: Service, tmp_path: Path) -> None:
    listed = calibrl("presets").stdout.splitlines()
    assert [line.split()[0] for line in listed] == presets.names()
    assert listed[0].split(maxsplit=1)[1].startswith("CalibRL on the built-in digits")
    file = spec_file(tmp_path, calibrl("presets", "calibrl").stdout)
    service.on("POST", "/v1/jobs", (201, job()))
    assert calibrl("submit", file, "--set", f"model.from_job={JOB_ID}").exit_code == 0
    assert service.requests[0].body["model"] == {"from_job": str(JOB_ID)}
    assert job_spec_adapter.validate_python(service.requests[0].body).name == "digits-calibrl"


def test_metrics_are_listed_and_explained_without_a_service() -> None:
    listed = calibrl("metrics").stdout
    assert "exploration/entropy " in listed
    assert "validation/accuracy " in listed
    assert {line.split("/")[0] for line in calibrl("metrics", "ratio/").stdout.splitlines()[1:]} == {"ratio"}
    explained = calibrl("metrics", "validation/accuracy_low").stdout
    for text in ("share", "Share of completions with a correct answer.", "higher is better", "95 % interval"):
        assert text in explained
    histogram = calibrl("metrics", "expert/gap").stdout
    assert "Gap of every token that has one. Unit: nats." in histogram
    assert "there is no metric 'nope'" in fault(calibrl("metrics", "nope"), 2)


def test_submit_as_json(service: Service, tmp_path: Path) -> None:
    service.on("POST", "/v1/jobs", (201, job()))
    assert json.loads(calibrl("submit", spec_file(tmp_path), "--json").stdout)["id"] == str(JOB_ID)


def test_a_refused_spec_names_each_field(service: Service, tmp_path: Path) -> None:
    errors = [{"field": "steps", "message": "must be at least 1"}, {"field": "name", "message": "is missing"}]
    service.on("POST", "/v1/jobs", problem(422, "Invalid job spec", errors=errors))
    result = calibrl("submit", spec_file(tmp_path))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "calibrl: Invalid job spec:\n  steps: must be at least 1\n  name: is missing\n"


def test_failures_of_the_service_are_exit_code_1(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.on("GET", "/v1/jobs", problem(500, "Internal error"))
    assert "Internal error" in fault(calibrl("jobs"), 1)
    monkeypatch.setenv("CALIBRL_API_URL", "http://127.0.0.1:1")
    assert "nothing answers at http://127.0.0.1:1: start the service with `calibrl up`" in fault(calibrl("jobs"), 1)


def test_a_bad_setting_is_named(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBRL_LEASE_SECONDS", "soon")
    assert "CALIBRL_LEASE_SECONDS" in fault(calibrl("up"), 2)


def test_an_unexpected_error_is_one_line_too(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(cli, "Client", broken)
    assert "internal error, RuntimeError: two lines (at " in fault(calibrl("show", str(JOB_ID)), 1)


def test_jobs_as_a_table_and_as_json(service: Service) -> None:
    service.on("GET", "/v1/jobs", page(job(), job(OTHER_ID, status="failed", reason="crashed", name="broken")))
    lines = calibrl("jobs").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ID", "11111111", "11111111"]
    assert "failed (crashed)" in lines[2]
    as_json = json.loads(calibrl("jobs", "--json", "--status", "failed").stdout)
    assert [one["name"] for one in as_json] == ["digits", "broken"]
    assert service.requests[-1].query["status"] == "failed"


def test_no_jobs(service: Service) -> None:
    service.on("GET", "/v1/jobs", page())
    assert calibrl("jobs").stdout == "No jobs.\n"
    assert "there is no job yet" in fault(calibrl("show", "latest"), 2)


def test_a_job_is_found_by_latest_prefix_and_id(service: Service) -> None:
    service.on("GET", "/v1/jobs", page(job(), job(OTHER_ID)))
    service.on("GET", JOB_PATH, job())
    service.on("POST", f"{JOB_PATH}/cancel", job(status="cancelling"))
    for name in ("11111111-2", str(JOB_ID), str(JOB_ID).upper(), "latest"):
        result = calibrl("cancel", name)
        assert (result.exit_code, result.stdout) == (0, f"{JOB_ID} digits: cancelling, step 3/10\n")


def test_a_prefix_is_searched_on_every_page(service: Service) -> None:
    service.on("GET", "/v1/jobs", page(job(OTHER_ID), has_more=True), page(job()))
    service.on("POST", f"{JOB_PATH}/cancel", job(status="cancelling"))
    assert calibrl("cancel", "11111111-2").exit_code == 0
    assert service.requests[1].query["after"] == str(OTHER_ID)


def test_a_prefix_of_two_or_no_jobs_is_refused(service: Service) -> None:
    service.on("GET", "/v1/jobs", page(job(), job(OTHER_ID)))
    refused = fault(calibrl("cancel", "1111"), 2)
    assert f"'1111': 2 jobs have an id that begins with it: give the whole id ({JOB_ID}, {OTHER_ID})" in refused
    assert "no job has an id that begins with 'ffff', or this name" in fault(calibrl("cancel", "ffff"), 2)
    assert "'digits': 2 jobs have this name" in fault(calibrl("cancel", "digits"), 2)
    service.on("GET", "/v1/jobs", page(job(), job(OTHER_ID, name="11111111-2")))
    assert "have an id that begins with it, or this name" in fault(calibrl("cancel", "11111111-2"), 2)


def test_a_job_is_found_by_its_name(service: Service) -> None:
    service.on("GET", "/v1/jobs", page(job(), job(OTHER_ID, name="another", notes="digits")))
    service.on("POST", f"{JOB_PATH}/cancel", job(status="cancelling"))
    assert calibrl("cancel", "digits").exit_code == 0
    assert service.requests[0].query["q"] == "digits"


def test_specs_name_jobs_and_datasets_as_commands_do(service: Service, tmp_path: Path) -> None:
    service.on("GET", "/v1/jobs", page(job()))
    service.on("GET", "/v1/datasets", page(dataset()))
    service.on("POST", "/v1/jobs", (201, job()))
    text = "kind: evaluate\nlabels: {dataset: x}\nmodels: [{from_job: latest}]\ndata: [{dataset: mine}]\n"
    assert calibrl("submit", spec_file(tmp_path, f"{text}depends_on: ['1111', {OTHER_ID}]")).exit_code == 0
    sent = service.requests[-1].body
    assert sent["models"] == [{"from_job": str(JOB_ID)}] and sent["data"] == [{"dataset": DATASET_ID}]
    assert sent["labels"] == {"dataset": "x"}
    assert sent["depends_on"] == [str(JOB_ID), str(OTHER_ID)]


def test_submit_says_the_next_command_and_can_wait(service: Service, tmp_path: Path) -> None:
    service.on("POST", "/v1/jobs", (201, job(status="queued")))
    service.on("GET", JOB_PATH, job(status="failed"))
    service.on("GET", f"{JOB_PATH}/metrics", page())
    service.on("GET", f"{JOB_PATH}/events", page())
    result = calibrl("submit", spec_file(tmp_path))
    assert (result.stdout, result.stderr) == (f"{JOB_ID}\n", "Progress: calibrl watch 11111111\n")
    waited = calibrl("submit", "--wait", spec_file(tmp_path))
    assert (waited.exit_code, waited.stdout, waited.stderr) == (1, f"{JOB_ID}\n", "")
    watched = calibrl("submit", "--watch", spec_file(tmp_path))
    assert (watched.exit_code, watched.stdout.splitlines()[1:]) == (1, [f"{JOB_ID} digits: failed, step 3/10"])


def test_a_spec_is_read_from_standard_input(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("kind: train\ndata: {path: d.jsonl}\n"))
    assert read_spec(Path("-"), []) == {"kind": "train", "data": {"path": str(tmp_path / "d.jsonl")}}


def test_a_list_of_specs_is_submitted_as_a_pipeline(service: Service, tmp_path: Path) -> None:
    service.on("POST", "/v1/pipelines", (201, page(job(), job(OTHER_ID))))
    text = "- {kind: train, name: a, steps: 10}\n- {kind: train, name: b, model: {from_job: '@a'}}\n"
    result = calibrl("submit", spec_file(tmp_path, text), "--set", "0.steps=5", "--unset", "1.name")
    assert (result.exit_code, result.stdout) == (0, f"{JOB_ID}\n{OTHER_ID}\n")
    first, second = service.requests[0].body["jobs"]
    assert first["steps"] == 5 and second == {"kind": "train", "model": {"from_job": "@a"}}
    assert "only `calibrl submit` takes several" in fault(calibrl("plan", spec_file(tmp_path, text)), 2)


def test_the_profile_can_be_named_after_the_command(service: Service) -> None:
    assert "there is no profile 'lab'" in fault(calibrl("jobs", "--profile", "lab"), 1)
    assert "there is no profile 'lab'" in fault(calibrl("jobs", "--limit", "5", "--profile=lab"), 1)


@pytest.mark.parametrize("arguments", [["data"], ["keys"], ["jobs", "-h"], ["-h"]])
def test_help_is_no_error(arguments: list[str]) -> None:
    result = calibrl(*arguments)
    assert (result.exit_code, result.stderr) == (0, "") and "Usage" in result.stdout


def test_a_job_that_does_not_exist(service: Service) -> None:
    assert "Not found" in fault(calibrl("show", JOB_ID.hex[:8] + str(JOB_ID)[8:]), 2)


def test_cancel_of_an_ended_job_is_a_failure(service: Service) -> None:
    service.on("GET", JOB_PATH, job(status="succeeded"))
    service.on("POST", f"{JOB_PATH}/cancel", problem(409, "Conflict", detail="the job has succeeded"))
    assert "Conflict: the job has succeeded" in fault(calibrl("cancel", str(JOB_ID)), 1)


def test_show_prints_why_a_job_waits(service: Service) -> None:
    service.on("GET", JOB_PATH, job(status="queued"))
    service.on("GET", "/v1/queue", page(entry(OTHER_ID), entry(position=2)))
    service.on("GET", f"{JOB_PATH}/events", page())
    service.on("GET", f"{JOB_PATH}/checkpoints", page())
    shown = calibrl("show", str(JOB_ID)).stdout
    assert "position 2: waiting for a free CPU slot; starts: unknown" in shown


def test_show_prints_all_fields(service: Service) -> None:
    event = {
        "id": 1,
        "ts": "2026-01-01T00:00:00Z",
        "type": "submitted",
        "status": "queued",
        "reason": None,
        "actor": "user",
        "message": "by hand",
    }
    checkpoint = {"step": 3, "path": "/runs/x", "best": True, "metrics": {}, "created_at": "2026-01-01T00:00:00Z"}
    service.on("GET", JOB_PATH, job(status="succeeded", result={"accuracy": 0.5}))
    service.on("GET", f"{JOB_PATH}/events", page(event, has_more=True), page(event | {"id": 2, "message": "later"}))
    service.on("GET", f"{JOB_PATH}/checkpoints", page(checkpoint))
    result = calibrl("show", str(JOB_ID))
    for part in ("succeeded", "by hand", "later", "/runs/x", "accuracy: 0.5", "steps: 10"):
        assert part in result.stdout
    assert [r.query["after"] for r in service.requests if r.path.endswith("events")] == ["0", "1"]
    assert json.loads(calibrl("show", str(JOB_ID), "--json").stdout)["result"] == {"accuracy": 0.5}


def log_chunk(text: str, next: int) -> dict[str, Any]:
    return {"text": text, "next": next}


def test_logs_without_follow_end_at_the_last_line(service: Service) -> None:
    service.on("GET", JOB_PATH, job())
    service.on("GET", f"{JOB_PATH}/log", log_chunk("one\n", 4), log_chunk("two \x1b[1m\n", 9), log_chunk("", 9))
    result = calibrl("logs", str(JOB_ID))
    assert (result.exit_code, result.stdout) == (0, "one\ntwo \ufffd[1m\n")
    assert [request.query["after"] for request in service.requests if request.path.endswith("log")] == ["0", "4", "9"]


def test_logs_follow_to_the_last_line(service: Service) -> None:
    service.on("GET", JOB_PATH, job(), job(), job(), job(status="succeeded"))
    service.on(
        "GET",
        f"{JOB_PATH}/log",
        log_chunk("a", 1),
        log_chunk("", 1),
        log_chunk("", 1),
        log_chunk("b", 2),
        log_chunk("", 2),
    )
    assert calibrl("logs", "-f", str(JOB_ID)).stdout == "ab"


def metric(step: int, **values: float) -> dict[str, Any]:
    return {"step": step, "ts": "2026-01-01T00:00:00Z", "values": {f"reward/{name}": v for name, v in values.items()}}


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 1)])
def test_watch_ends_with_the_job_and_its_exit_code(service: Service, status: str, code: int) -> None:
    last = job(step=10, status=status, message="the end")
    service.on("GET", JOB_PATH, job(status="queued", step=0), job(), job(), job(), last)
    service.on("GET", f"{JOB_PATH}/metrics", page(metric(3, mean=0.5)))
    service.on("GET", f"{JOB_PATH}/events", page())
    result = calibrl("watch", str(JOB_ID))
    assert result.exit_code == code
    shown_statuses = [line.split(": ", 1)[1] for line in result.stdout.splitlines()]
    assert shown_statuses == ["running, step 3/10", f"{status}, step 10/10: the end"]


def test_watch_continues_while_a_job_is_paused(service: Service) -> None:
    course = [
        job(status=status) for status in ("running", "running", "pausing", "paused", "paused", "queued", "running")
    ]
    service.on("GET", JOB_PATH, *course, job(step=10, status="succeeded"))
    service.on("GET", f"{JOB_PATH}/metrics", page())
    service.on("GET", f"{JOB_PATH}/events", page())
    result = calibrl("watch", str(JOB_ID))
    shown_statuses = [line.split(": ", 1)[1].partition(",")[0] for line in result.stdout.splitlines()]
    assert (result.exit_code, shown_statuses) == (0, ["running", "pausing", "paused", "queued", "running", "succeeded"])


def test_watch_reads_only_new_metrics_and_all_again_after_a_rewind(service: Service) -> None:
    steps = [5, 7, 2, 3]
    statuses = [job(step=5), *(job(step=step) for step in steps), job(step=3, status="succeeded")]
    service.on("GET", JOB_PATH, *statuses)
    pages = [
        page(metric(4), metric(5)),
        page(metric(6), metric(7)),
        page(metric(1), metric(2)),
        page(metric(3)),
        page(),
    ]
    service.on("GET", f"{JOB_PATH}/metrics", *pages)
    service.on("GET", f"{JOB_PATH}/events", page())
    assert calibrl("watch", str(JOB_ID)).exit_code == 0
    asked = [request.query["after_step"] for request in service.requests if request.path.endswith("metrics")]
    assert asked == ["-1", "5", "-1", "2", "3"]


def event(id: int, type: str, message: str) -> dict[str, Any]:
    of = {"id": id, "ts": "2026-01-01T00:00:00Z", "type": type, "actor": "worker", "message": message}
    return of | {"status": None, "reason": None}


def test_watch_prints_each_warning_once(service: Service) -> None:
    service.on("GET", JOB_PATH, job(), job(), job(), job(step=10, status="succeeded"))
    service.on("GET", f"{JOB_PATH}/metrics", page())
    long = "no_advantage fired at step 9: " + "nothing is learned " * 20
    first, second = event(4, "started", "attempt 1"), event(7, "health", f"{long}\x1b[2J")
    service.on("GET", f"{JOB_PATH}/events", page(first, second), page(event(8, "warning", "lines skipped")), page())
    lines = calibrl("watch", str(JOB_ID)).stdout.splitlines()
    assert [line for line in lines if str(JOB_ID) not in line] == [
        f"health: {long}\ufffd[2J",
        "warning: lines skipped",
    ]
    asked = [request.query["after"] for request in service.requests if request.path.endswith("events")]
    assert asked == ["0", "7", "8"]
