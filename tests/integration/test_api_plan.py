"""Plans of jobs over real HTTP: they answer as a submission would, and add nothing."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pyarrow
import pyarrow.parquet as parquet
import pytest

from api.examples import EVALUATE, TRAIN
from calibrl_core.data import files
from calibrl_core.data.schema import HubData
from jobs.db import session_scope
from jobs.files import hub_rows
from jobs.repository import events
from tests.support import job_steps
from tests.support.api_users import ApiUsers
from tests.support.pictures import png
from tests.support.rest import named, refused, submitted
from tests.support.word_tokenizer import save_word_tokenizer
from worker.events import CheckedLine
from worker.shipper import checked_sentence

pytestmark = pytest.mark.integration


@pytest.fixture
def users(http: httpx.Client) -> Iterator[ApiUsers]:
    with ApiUsers(http) as users:
        yield users


def planned(http: httpx.Client, **changes: Any) -> dict[str, Any]:
    answer = http.post("/v1/jobs:plan", json={**TRAIN, **changes})
    assert answer.status_code == 200, answer.text
    plan: dict[str, Any] = answer.json()
    return plan


def rows(path: Path, count: int, experts: int) -> Path:
    row = {"question": "1 + 1?", "answer": "2"}
    path.write_text("".join(json.dumps(row | ({"expert": "2"} if i < experts else {})) + "\n" for i in range(count)))
    return path


def folder(path: Path, **config: Any) -> str:
    """A model of which there is only the config: Qwen2.5-7B's."""
    path.mkdir()
    sizes = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "vocab_size": 152064}
    heads = {"num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 32768}
    (path / "config.json").write_text(json.dumps({"model_type": "qwen2", **sizes, **heads, **config}))
    return str(path)


def test_a_plan_has_the_defaults_of_a_submission_and_adds_nothing(http: httpx.Client) -> None:
    for body in (TRAIN, EVALUATE):
        plan = http.post("/v1/jobs:plan", json=body).json()
        assert http.get("/v1/jobs").json()["data"] == [] or body is EVALUATE
        assert plan["spec"] == http.post("/v1/jobs", json=body).json()["spec"]
    assert job_steps.run_count("SELECT count(*) FROM events") == 2
    assert job_steps.run_count("SELECT count(*) FROM jobs") == 2


def test_a_plan_is_refused_where_a_submission_is(http: httpx.Client, tmp_path: Path) -> None:
    http.put("/v1/projects/small", json={"max_queued": 0})
    bad: list[dict[str, Any]] = [
        {"steps": 0},
        {"steps": 0, "model": {"builtin": "huge"}, "colour": "red"},
        {"model": {"path": "/nowhere"}},
        {"data": {"path": str(rows(tmp_path / "d.jsonl", 3, 0))}},
        {"data": {"path": "relative.jsonl"}},
        {"project": "nobodys"},
        {"resources": {"gpus": 2}},
        {"depends_on": ["00000000-0000-0000-0000-000000000001"]},
        {"project": "small"},
    ]
    for changes in bad:
        plan, submission = (http.post(path, json={**TRAIN, **changes}) for path in ("/v1/jobs:plan", "/v1/jobs"))
        status = 409 if changes == {"project": "small"} else 422
        problems = [refused(answer, status) for answer in (plan, submission)]
        assert problems[0]["errors"] == problems[1]["errors"], changes
    assert http.get("/v1/jobs").json()["data"] == []


def test_data_is_counted_and_looked_into_once(
    http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []
    survey = files.survey

    def counted(source: Any, watch: Any, *, answers: bool) -> Any:
        read.append(source)
        return survey(source, watch, answers=answers)

    monkeypatch.setattr(files, "survey", counted)
    path = rows(tmp_path / "d.jsonl", 40, 30)
    data = {"path": str(path)}
    (facts, held_out) = planned(http, data=data)["data"]
    assert facts == {
        "field": "data",
        "name": "d",
        "rows": 40,
        "checked": 40,
        "with_expert": 30,
        "with_images": 0,
        "row_format": "the plain format",
        "unused_columns": [],
    }
    assert (held_out["field"], held_out["rows"]) == ("validation.data", 50)
    submitted(http, data=data)
    assert len(read) == 1
    rows(path, 50, 30)
    assert planned(http, data=data)["data"][0]["rows"] == 50
    assert len(read) == 2
    notices = planned(http, data=data)["warnings"]
    assert {"field": "data", "message": "40% of the checked rows have no expert and get no guidance"} in notices


@pytest.mark.parametrize("registered", [False, True])
def test_first_rows_of_the_hub_are_looked_at_as_those_of_files(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch, registered: bool
) -> None:
    right, wrong = ({"expert": f"<think>1</think><answer>{number}</answer>"} for number in (2, 3))
    row = {"question": "1 + 1?", "answer": "2", "level": 5}
    read: list[HubData] = []

    def reading(source: HubData, key: str) -> Any:
        read.append(source)
        path = hub_rows._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist([row | right, row | wrong]), path)
        return hub_rows._Outcome(rows=2, complete=source.split == "test")

    monkeypatch.setattr(hub_rows, "_known", {})
    monkeypatch.setattr(hub_rows, "_read", reading)
    body, whole = {"hub": "a/b"}, {"hub": "a/b", "split": "test"}
    if registered:
        known = [http.post("/v1/datasets", json={"name": "mine", **each}).json() for each in (body, whole)]
        body, whole = ({"dataset": each["id"]} for each in known)
    plan = planned(http, data=body)
    facts = {"rows": None, "checked": 2, "with_expert": 2, "with_images": 0, "row_format": "the plain format"}
    name = {"field": "data", "name": "a/b (train)", "unused_columns": ["level"]}
    assert plan["data"][0] == facts | name
    found = [notice["message"].partition(" fail")[0] for notice in plan["warnings"] if notice["field"] == "data"]
    assert "of the first 2 rows: 1 of 2 judged experts" in found
    assert planned(http, data=whole)["data"][0]["rows"] == 2
    assert planned(http, data=body)["data"][0]["rows"] is None
    assert [source.split for source in read] == ["train", "test"]


def test_experts_are_counted_by_the_tokenizer_of_a_checkpoint(
    http: httpx.Client, users: ApiUsers, tmp_path: Path
) -> None:
    parent = submitted(http)["id"]
    save_word_tokenizer(job_steps.checkpoint(UUID(parent), 10))
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({"question": "1 + 1?", "answer": "2", "expert": "<answer>2</answer> a b a b"}))
    words = {"model": {"from_job": parent, "checkpoint": 10}, "data": {"path": str(path)}}
    asked = TRAIN | words | {"rollout": {"max_completion_tokens": 5}}  # the expert has 6, with the end of its turn
    ann = users.add("ann", {"default": "member"})
    for plan in (http.post("/v1/jobs:plan", json=asked).json(), users.post(ann, "/v1/jobs:plan", asked).json()):
        found = [notice["message"] for notice in plan["warnings"] if notice["field"] == "data"]
        assert any(
            message.startswith("1 of 1 experts (rows 1) have more than 5 tokens and are cut") for message in found
        )


def test_the_plan_of_an_evaluation_counts_the_images_of_an_upload(http: httpx.Client, tmp_path: Path) -> None:
    picture = base64.b64encode(png()).decode()
    rows = [{"question": "1 + 1?", "answer": "2", "images": [picture]}, {"question": "1 + 2?", "answer": "3"}]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    dataset = http.post("/v1/datasets/upload", content=content.encode(), params={"name": "mine"}).json()
    (tmp_path / "text.gguf").write_bytes(b"GGUF")
    spec = {
        "kind": "evaluate",
        "name": "x",
        "models": [{"path": str(tmp_path / "text.gguf")}],
        "data": [{"dataset": dataset["id"]}],
    }
    plan = http.post("/v1/jobs:plan", json=spec).json()
    assert (plan["data"][0]["with_expert"], plan["data"][0]["with_images"]) == (0, 1)
    warnings = [warning["message"] for warning in plan["warnings"] if warning["field"] == plan["data"][0]["field"]]
    assert "1 of 2 rows have images, and models.0 is a text model: choose an image-text model" in warnings


@pytest.mark.parametrize("uploaded", [False, True])
def test_the_plan_warns_of_rows_that_harm_the_job(http: httpx.Client, tmp_path: Path, uploaded: bool) -> None:
    right, wrong = ({"expert": f"<think>1</think><answer>{number}</answer>"} for number in (2, 3))
    row, path = {"question": "1 + 1?", "answer": "2"}, tmp_path / "train.jsonl"
    held_out = tmp_path / "held-out.jsonl"
    held_out.write_text(json.dumps(row))
    lines = [row | right, row | right, {**row, "question": "1 * 2?", **wrong}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = {"path": str(path)}
    if uploaded:
        answer = http.post("/v1/datasets/upload", content=path.read_bytes(), params={"name": "mine"})
        data = {"dataset": answer.json()["id"]}
    validation = {"data": {"path": str(held_out)}, "every_steps": 10}
    plan = planned(http, data=data, validation=validation)
    assert (plan["data"][0]["with_expert"], plan["data"][0]["with_images"]) == (3, 0)
    notices = plan["warnings"]
    found = [notice["message"] for notice in notices if notice["field"] == "data"]
    assert [text.partition(":")[0] for text in found] == [
        "1 of 2 prompts are in the validation data too, whose results then show memory",
        "1 of 3 rows repeat an earlier row",
        "1 of 3 judged experts fail the rewards (rows 3), so that the run can learn to avoid them",
    ]


def test_the_plan_shows_the_queue_with_the_new_job(http: httpx.Client) -> None:
    assert planned(http)["queue"]["reason"] == "no_machine"
    job_steps.machine("w", cpu_slots=1)
    queue = planned(http)["queue"]
    assert (queue["position"], queue["reason"], queue["explanation"]) == (1, None, "starts on w now")
    assert (queue["slots"], queue["expected_seconds"]) == (1, None)
    first = submitted(http, limits={"timeout_seconds": 600})
    job_steps.claim()
    submitted(http, limits={"timeout_seconds": 600})
    queue = planned(http, limits={"timeout_seconds": 60})["queue"]
    assert (queue["position"], queue["reason"], queue["expected_seconds"]) == (2, "busy", 60)
    assert planned(http, priority="high")["queue"]["position"] == 1
    waiting = planned(http, model={"from_job": first["id"]})["queue"]
    assert (waiting["position"], waiting["reason"]) == (None, "waiting")
    assert [entry["position"] for entry in http.get("/v1/queue").json()["data"]] == [1]  # as it is


def test_memory_is_held_against_the_gpus_of_machines(http: httpx.Client, tmp_path: Path) -> None:
    job_steps.machine("w", gpus=2)  # of 80 GB
    whole = {"path": folder(tmp_path / "qwen")}
    resources = {"gpus": 1}
    plan = planned(http, model=whole, resources=resources)
    memory = plan["memory"]
    parts = {part["name"]: part["bytes"] for part in memory["parts"]}
    assert memory["parameters"] == memory["trained"] == 7_615_616_512  # as Qwen2.5-7B's model card has it, 7.61 B
    assert parts["weights"] == parts["gradients"] == 4 * memory["parameters"]
    assert parts["optimizer"] == 8 * memory["parameters"]
    assert memory["fits"] is False
    assert any("each process takes about" in notice["message"] for notice in plan["warnings"])
    small = planned(http, model=whole | {"lora": {"rank": 8}}, resources=resources, micro_batch_tokens=2048)["memory"]
    assert (small["fits"], small["on"]) == (True, "GPU")
    assert small["trained"] == 8 * 28 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))
    on_cpu = planned(http, model=whole)
    assert (on_cpu["memory"]["fits"], on_cpu["memory"]["on"]) == (None, "host")
    assert "resources.gpus" in [notice["field"] for notice in on_cpu["warnings"]]


def test_an_unknown_model_size_is_reported(http: httpx.Client, tmp_path: Path) -> None:
    plan = planned(http, model={"path": folder(tmp_path / "odd", model_type="odd")})
    assert plan["memory"] is None
    assert "config.json is not sufficient for odd" in plan["warnings"][-1]["message"]
    (tmp_path / "odd" / "model.safetensors").write_bytes(b"\xff" * 64)
    assert "memory unknown" in planned(http, model={"path": str(tmp_path / "odd")})["warnings"][-1]["message"]


def test_risks_are_reported_per_field(http: httpx.Client) -> None:
    def fields(**changes: Any) -> list[str]:
        found = sorted(notice["field"] for notice in planned(http, **changes)["warnings"])
        found.remove("model")  # it has random weights
        return found

    assert fields() == []
    assert fields(validation=None) == ["validation"]
    assert fields(optimizer={"lr": 1e-6}, steps=20) == ["optimizer.lr"]
    assert fields(optimizer={"lr": 3e-4}) == ["optimizer.lr"]
    assert fields(rollout={"group_size": 2, "temperature": 0.5, "max_completion_tokens": 64}) == [
        "rollout.group_size",
        "rollout.temperature",
    ]
    assert fields(rollout={"max_completion_tokens": 512}) == ["rollout.max_completion_tokens"]
    assert fields(precision="bfloat16") == ["precision"]
    assert fields(data={"builtin": "digits", "rows": 4}) == ["prompts_per_step", "steps"]
    assert fields(steps=10) == ["validation.every_steps"]


def test_unknown_routes_beside_the_plan(http: httpx.Client) -> None:
    refused(http.get("/v1/jobs:plan"), 405)
    assert named(http.post("/v1/jobs:plan", json={})) == ["kind"]


def test_a_large_plan_full_of_errors_gets_a_small_answer(http: httpx.Client) -> None:
    spec: dict[str, Any] = {"kind": "train", "name": "x", "data": {"builtin": "digits"}, "steps": 1}
    spec |= {"model": {"builtin": "tiny-vlm", "lora": {"targets": [1] * 80_000}}}
    answer = http.post("/v1/jobs:plan", json=spec)
    assert answer.status_code == 422 and len(answer.content) < 1_000
    spec["model"]["lora"]["targets"] = [1] * 3_000  # within the limit on values
    answer = http.post("/v1/jobs:plan", json=spec)
    assert answer.status_code == 422 and len(answer.content) < 20_000
    assert len(answer.json()["errors"]) == 100 and answer.json()["detail"].startswith("3000 fields")


def test_a_plan_shows_the_check_of_an_earlier_job_of_the_project(http: httpx.Client) -> None:
    assert planned(http)["models"][0]["check"] is None
    earlier = submitted(http)
    line = CheckedLine(type="checked", ts=0, model_index=0, difference=2.04e-6, limit=1e-3, measured_at=1_795_950_000)
    with session_scope() as session:
        events.add(session, earlier["id"], events.CHECKED, actor="w", message=checked_sentence(line))
    said = "model 1 was checked on 2026-11-29: sampler, update and transformers differ by at most 2e-06 nats"
    assert planned(http)["models"] == [
        {"field": "model", "name": "tiny-vlm", "commit": None, "download_bytes": None, "check": f"{said} (limit 0.001)"}
    ]
    assert planned(http, model={"builtin": "tiny-vlm", "seed": 1})["models"][0]["check"] is None
    http.put("/v1/projects/other", json={})
    assert planned(http, project="other")["models"][0]["check"] is None


def test_a_model_folder_that_does_not_exist_is_said_to_be_missing(http: httpx.Client, tmp_path: Path) -> None:
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.mkdir()
    texts = [http.post("/v1/jobs:plan", json=TRAIN | {"model": {"path": str(path)}}).text for path in (missing, empty)]
    assert f"there is no folder {missing} on the server" in texts[0]
    assert "it has no config.json" in texts[1]
