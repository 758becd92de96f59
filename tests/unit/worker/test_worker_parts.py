"""Parts of the worker that need no services."""

import json
import signal
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pytest

from calibrl.schemas import Reason
from jobs.lifecycle import Claim
from jobs.settings import Settings, get_settings
from worker import shipper
from worker.events import ErrorLine, FinishLine, MetricsLine, run_event_adapter
from worker.machine_heartbeat import Slots
from worker.shipper import BATCH_BYTES, BATCH_LINES, read_batch
from worker.standby import Standby
from worker.supervisor import Supervisor
from worker.trainer_process import child_environment, describe_exit, out_of_memory_kills


def line(**fields: object) -> bytes:
    return json.dumps({"ts": 1.5, **fields}).encode() + b"\n"


def test_the_gpus_of_servers_have_no_process_of_the_trainer() -> None:
    for servers, gpus, processes in ((2, 6, 4), (None, 6, 6), (2, 0, 1)):  # the last: a CPU slot
        config = {"rollout": {"server_gpus": servers}}
        claim = Claim(uuid4(), 1, uuid4(), "train", config, tuple(range(gpus)))
        assert (claim.processes, claim.launched) == (processes, processes > 1)
    assert Claim(uuid4(), 1, uuid4(), "train", {}, machines=2).launched


def test_a_batch_ends_before_a_line_that_is_still_being_written(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    whole = line(type="metrics", step=1, values={"a": "NaN", "b": 2})
    path.write_bytes(whole + whole[:-1])
    batch = read_batch(path, 0)
    assert (len(batch.events), batch.offset, batch.skipped) == (1, len(whole), [])
    assert isinstance(batch.events[0], MetricsLine)
    assert batch.events[0].values == {"a": "NaN", "b": 2.0}
    assert read_batch(path, batch.offset).offset == batch.offset


def test_a_batch_is_bounded_in_lines_and_in_bytes(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    short = line(type="progress", step=1, steps_total=2)
    path.write_bytes(short * (BATCH_LINES + 1))
    assert read_batch(path, 0).offset == len(short) * BATCH_LINES
    long = line(type="log", level="info", message="x" * BATCH_BYTES)
    path.write_bytes(long * 2)
    assert read_batch(path, 0).offset == len(long)


def test_a_line_without_an_end_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper, "MAX_LINE_BYTES", 100)
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"x" * 350)
    batch = read_batch(path, 0)
    assert (batch.offset, batch.skipped) == (300, ["longer than 100 bytes"])
    good = line(type="finish", status="succeeded", step=3, result={})
    path.write_bytes(b"x" * 350 + b"\n" + good)
    later = read_batch(path, batch.offset)
    assert ([type(event) for event in later.events], later.skipped) == ([FinishLine], [])
    assert later.offset == path.stat().st_size


@pytest.mark.parametrize(
    "bad",
    [
        b"{\n",
        b"[]\n",
        b"\xff\n",
        b"\n",
        line(type="unheard_of"),
        line(type="metrics", step=-1, values={}),
        line(type="metrics", step=2**31, values={}),
        line(type="metrics", step=1, values={"a": "text"}),
        line(type="sample", step=1, group={"prompt_id": "p", "images": ["../../etc/passwd"], "completions": []}),
        line(type="error", reason="user", message="only a trainer's reasons"),
        line(type="finish", status="stopped", step=1, result={}, reason="user"),
        line(type="health", step=1, rule="no_advantage", state="unsure", message="m", suggestion=""),
    ],
)
def test_a_bad_line_is_skipped_and_the_next_one_read(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(bad + line(type="finish", status="succeeded", step=3, result={"a": [1]}))
    batch = read_batch(path, 0)
    assert len(batch.skipped) == 1 and "\n" not in batch.skipped[0]
    assert [type(event) for event in batch.events] == [FinishLine]
    assert batch.offset == path.stat().st_size


@pytest.mark.parametrize("reason", [Reason.OUT_OF_MEMORY, Reason.DISK_FULL, Reason.QUOTA])
def test_an_error_keeps_its_reason(reason: Reason) -> None:
    event = run_event_adapter.validate_json(line(type="error", reason=reason, message="a tensor"))
    assert isinstance(event, ErrorLine) and event.reason is reason


def test_a_finish_keeps_why_a_run_was_stopped() -> None:
    event = run_event_adapter.validate_json(
        line(type="finish", status="stopped", step=3, result={}, reason="health", message="no_advantage fired")
    )
    assert isinstance(event, FinishLine) and (event.reason, event.message) == (Reason.HEALTH, "no_advantage fired")


def test_a_trainer_inherits_the_environment_but_for_secrets_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "CALIBRL_API_KEY", "CALIBRL_DATA_DIR"):
        monkeypatch.setenv(name, "secret" * 6)
    monkeypatch.setenv("HF_HOME", "/models")
    monkeypatch.setenv("ORG_MODE", "strict")
    get_settings.cache_clear()
    assert "ORG_MODE" not in child_environment([1])
    monkeypatch.setenv("CALIBRL_JOB_VARIABLES", "ORG_MODE")
    monkeypatch.delenv("CALIBRL_API_KEY")
    get_settings.cache_clear()
    environment = child_environment([1])
    get_settings.cache_clear()
    assert "secret" * 6 not in environment.values()
    assert environment["ORG_MODE"] == "strict"
    assert (environment["HF_HOME"], environment["CUDA_VISIBLE_DEVICES"]) == ("/models", "1")


@pytest.mark.parametrize(
    "name", ["CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "ATEN_CPU_CAPABILITY", "LD_PRELOAD", "CC"]
)
def test_a_trainer_gets_variables_that_change_results(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "as set")
    assert child_environment(())[name] == "as set"


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGINGFACE_HUB_TOKEN", "VLLM_API_KEY", "PYTHON_PASSWORD"])
def test_a_trainer_gets_no_secret_of_its_libraries(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "a secret")
    assert name not in child_environment(())


def test_an_exit_in_words() -> None:
    assert describe_exit(1) == "Trainer exited with code 1"
    assert describe_exit(-signal.SIGSEGV) == "Trainer was killed by SIGSEGV"


def test_memory_kills_are_those_of_the_control_group_or_the_machine(tmp_path: Path) -> None:
    for folder in ("proc/self", "sys/fs/cgroup/jobs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("1:cpu:/other\n0::/jobs\n")
    (tmp_path / "proc/vmstat").write_text("nr_free_pages 5\noom_kill 7\n")
    assert out_of_memory_kills(tmp_path) == 7
    (tmp_path / "sys/fs/cgroup/jobs/memory.events").write_text("oom 9\noom_kill 3\n")
    assert out_of_memory_kills(tmp_path) == 3


def test_slots_report_their_jobs() -> None:
    slots, first, second = Slots(2), uuid4(), uuid4()
    assert (slots.running(), slots.gpus()) == ([], set())
    slots.put(0, first, (0, 63))
    slots.put(1, second, (2,))
    assert (slots.running(), slots.gpus()) == ([first, second], {0, 2, 63})
    slots.put(0, second)  # its old slot hangs
    assert (slots.running(), slots.gpus()) == ([second, second], {2})
    slots.put(1, None)
    assert (slots.running(), slots.gpus()) == ([second], set())


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_job_gets_one_process_per_gpu(
    kind: Literal["train", "evaluate"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []

    def start(command: list[str], *, log: Path, env: dict[str, str]) -> None:
        started.append((list(command), dict(env)))

    monkeypatch.setattr("calibrl.processes.children.start", start)
    settings = Settings(data_dir=tmp_path)
    standby = Standby(settings, child_environment(()))
    for gpus in ((0, 2), (1,)):
        claim = Claim(uuid4(), 1, uuid4(), kind, config={}, gpus=gpus)
        Supervisor(claim, settings, standby)._start()
    (two, environment), (one, _) = started
    assert two[two.index("--num_processes") + 1] == "2" and two[two.index("--module") + 1] == f"calibrl_core.{kind}"
    assert environment["CUDA_VISIBLE_DEVICES"] == "0,2"
    assert one[1:3] == ["-m", f"calibrl_core.{kind}"]
