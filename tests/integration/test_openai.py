"""The official client of OpenAI, unchanged, against the served API: files, jobs, events, checkpoints, errors."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types import FileObject
from openai.types.fine_tuning import FineTuningJob
from openai.types.graders import StringCheckGraderParam
from PIL import Image

from calibrl.schemas import JobStatus, Reason
from calibrl_core import data
from calibrl_core.config import TrainConfig
from jobs.db import session_scope
from jobs.repository import checkpoints, metrics
from jobs.settings import get_settings
from tests.support import API_KEY, ROOT, life
from tests.support.people import People
from tests.support.rest import refused, serving, submitted

pytestmark = pytest.mark.integration
Client = Callable[..., OpenAI]


@pytest.fixture
def api(database: str) -> Iterator[httpx.Client]:
    with serving() as client:
        yield client


@pytest.fixture
def client_of(api: httpx.Client) -> Iterator[Client]:
    """Makes OpenAI's client for a key."""
    made: list[OpenAI] = []

    def make(key: str = API_KEY, **options: Any) -> OpenAI:
        made.append(OpenAI(base_url=f"{api.base_url}/v1", api_key=key, max_retries=0, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def client(client_of: Client) -> OpenAI:
    return client_of()


def picture() -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (28, 28), "red").save(buffer, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def chat(number: int, *, answered: bool = True, **columns: Any) -> dict[str, Any]:
    question = {"role": "user", "content": [picture(), {"type": "text", "text": f"What is {number} + 1?"}]}
    answer = {"role": "assistant", "content": f"It is {number + 1}."}
    return {"messages": [{"role": "system", "content": "Add."}, question, *([answer] if answered else [])]} | columns


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


CHATS = jsonl([chat(number) for number in range(8)])
GRADED = jsonl([chat(number, answered=number > 3, reference_answer=str(number + 1)) for number in range(8)])
GRADER: StringCheckGraderParam = {
    "type": "string_check",
    "name": "equal",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.reference_answer }}",
    "operation": "eq",
}


def upload(client: OpenAI, content: bytes = CHATS, name: str = "chats.jsonl") -> FileObject:
    return client.files.create(file=(name, content), purpose="fine-tune")


def by_trial(**hyperparameters: Any) -> Any:
    return {"type": "reinforcement", "reinforcement": {"grader": GRADER, "hyperparameters": hyperparameters}}


def create(client: OpenAI, **options: Any) -> FineTuningJob:
    given = {"training_file": upload(client).id} if "training_file" not in options else {}
    return client.fine_tuning.jobs.create(**{"model": "tiny-vlm", **given, **options})


def uuid(job: FineTuningJob) -> UUID:
    return UUID(job.id.removeprefix("ftjob-"))


def fault(error: openai.APIStatusError) -> tuple[str | None, str | None]:
    assert isinstance(error.body, dict) and error.body.keys() == {"message", "type", "param", "code"}
    assert error.request_id == error.response.headers["x-request-id"]
    return error.param, error.code


def test_files_are_uploaded_listed_read_and_deleted(client: OpenAI) -> None:
    first, second = upload(client), upload(client, GRADED, "graded set.jsonl")
    assert (first.filename, first.bytes, first.purpose, first.object) == (
        "chats.jsonl",
        len(CHATS),
        "fine-tune",
        "file",
    )
    assert (first.status, second.filename) == ("processed", "graded set.jsonl")
    assert upload(client).id == first.id  # the same content
    assert client.files.retrieve(first.id) == client.files.retrieve(str(UUID(first.id[5:]))) == first
    assert client.files.content(second.id).read() == GRADED
    assert [file.id for file in client.files.list(limit=1)] == [second.id, first.id]  # page by page
    assert [file.id for file in client.files.list(order="asc", purpose="fine-tune")] == [first.id, second.id]
    assert client.files.list(purpose="batch").data == []
    gone = client.files.delete(first.id)
    assert (gone.id, gone.deleted) == (first.id, True)
    with pytest.raises(openai.NotFoundError, match="There is no file"):
        client.files.retrieve(first.id)
    assert client.files.wait_for_processing(second.id).status == "processed"


def test_files_that_can_not_be_used_are_refused(client: OpenAI, api: httpx.Client) -> None:
    rows = [chat(0), {"messages": [{"role": "user", "content": "?"}, {"role": "tool", "content": "?"}]}]
    with pytest.raises(openai.BadRequestError, match=r"rows\.2: column 'messages': a message's role must") as error:
        upload(client, jsonl(rows))
    assert fault(error.value) == ("rows.2", "invalid")
    with pytest.raises(openai.BadRequestError) as error:
        client.files.create(file=("a.jsonl", CHATS), purpose="batch")
    assert fault(error.value) == ("purpose", "invalid")
    with pytest.raises(openai.BadRequestError) as error:
        expires: Any = {"anchor": "created_at", "seconds": 3600}
        client.files.create(file=("a.jsonl", CHATS), purpose="fine-tune", expires_after=expires)
    assert fault(error.value) == ("expires_after[anchor]", "invalid")
    bodies: list[dict[str, Any]] = [{"data": {"purpose": "fine-tune"}}, {"content": CHATS}, {"files": {"file": b""}}]
    for body in bodies:
        answer = api.post("/v1/files", **body)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    long = api.post("/v1/files", files={"file": CHATS}, data={"purpose": "x" * 2000})
    assert "too long" in long.json()["error"]["message"]
    assert client.files.list().data == []


def test_supervised_fine_tuning_is_a_job_like_any_other(client: OpenAI, api: httpx.Client) -> None:
    held_out = upload(client, GRADED)
    job = create(client, validation_file=held_out.id, suffix="sums", seed=3, metadata={"Team_A": "v", "x.y": ""})
    assert (job.object, job.status, job.model, job.seed) == ("fine_tuning.job", "queued", "tiny-vlm", 3)
    assert (job.hyperparameters.n_epochs, job.hyperparameters.batch_size) == (3, 8)
    assert job.method is not None and job.method.type == "supervised"
    assert (job.validation_file, job.metadata) == (held_out.id, {"Team_A": "v", "x.y": ""})
    assert (job.organization_id, job.fine_tuned_model, job.error, job.finished_at) == ("default", None, None, None)
    assert client.fine_tuning.jobs.retrieve(job.id) == job
    by_label = api.get("/v1/jobs", params={"label": "Team_A:v"}).json()["data"]
    assert [one["id"] for one in by_label] == [str(uuid(job))]
    ours = api.get(f"/v1/jobs/{uuid(job)}").json()
    assert (ours["name"], ours["spec"]["algorithm"]["type"], ours["spec"]["steps"]) == ("sums", "sft", 3)
    assert ours["labels"] == {"Team_A": "v", "x.y": ""}
    with pytest.raises(openai.BadRequestError, match="is used by unfinished jobs"):
        client.files.delete(held_out.id)


def test_reinforcement_compares_with_the_column_that_the_grader_names(client: OpenAI, api: httpx.Client) -> None:
    file = upload(client, GRADED)
    job = create(client, training_file=file.id, method=by_trial(n_epochs=2, batch_size=4, compute_multiplier=0.2))
    assert job.method is not None and job.method.reinforcement is not None
    assert job.method.reinforcement.grader.model_dump() == {**GRADER, "name": "exact"}
    spec = api.get(f"/v1/jobs/{uuid(job)}").json()["spec"]
    assert spec["algorithm"]["type"] == "calibrl"  # some rows have an expert
    assert (spec["steps"], spec["rollout"]["group_size"]) == (4, 2)
    assert spec["data"] == {"dataset": str(UUID(file.id[5:])), "rows": None, "answer": "reference_answer"}
    other = create(client, training_file=file.id, method=by_trial(), metadata={"calibrl_algorithm": "gspo"})
    assert api.get(f"/v1/jobs/{uuid(other)}").json()["spec"]["algorithm"]["type"] == "gspo"


def test_jobs_are_listed_by_pages_and_metadata(client: OpenAI, api: httpx.Client) -> None:
    api.post(
        "/v1/jobs",
        json={"kind": "evaluate", "name": "e", "models": [{"builtin": "tiny-vlm"}], "data": [{"builtin": "digits"}]},
    )
    native = f"ftjob-{UUID(submitted(api)['id']).hex}"
    made = [create(client, metadata={"n": str(number), "all": "y"}).id for number in range(3)]
    assert [job.id for job in client.fine_tuning.jobs.list(limit=2)] == [*reversed(made), native]
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"n": "1", "all": "y"})] == [made[1]]
    assert client.fine_tuning.jobs.list(metadata={"n": ""}).data == []
    unlabelled = client.fine_tuning.jobs.list(extra_query={"metadata": "null"})
    assert [job.id for job in unlabelled] == [native]
    shown = client.fine_tuning.jobs.retrieve(native)
    assert (shown.training_file, shown.method and shown.method.type) == ("digits-train", "reinforcement")
    for after in ("nonsense", made[0][:-4] + "0000"):
        with pytest.raises(openai.BadRequestError) as error:
            client.fine_tuning.jobs.list(after=after)
        assert fault(error.value) == ("after", "invalid")
    assert api.get("/v1/fine_tuning/jobs", params={"metadata[": "x"}).json()["error"]["param"] == "metadata"


def test_a_job_is_paused_resumed_and_cancelled(client: OpenAI) -> None:
    job = create(client)
    assert client.fine_tuning.jobs.pause(job.id).status == "queued"
    assert life.status(uuid(job)) == "paused"
    with pytest.raises(openai.BadRequestError, match="is already paused") as error:
        client.fine_tuning.jobs.pause(job.id)
    assert fault(error.value) == (None, "conflict")
    assert client.fine_tuning.jobs.resume(job.id).status == "queued"
    life.claim()
    assert client.fine_tuning.jobs.retrieve(job.id).status == "running"
    assert client.fine_tuning.jobs.pause(job.id).status == "queued"
    assert client.fine_tuning.jobs.cancel(job.id).status == "running"
    assert life.status(uuid(job)) == "cancelling"
    waiting = create(client, model=job.id)
    assert (waiting.status, waiting.model, life.status(uuid(waiting))) == ("queued", job.id, "waiting")
    cancelled = client.fine_tuning.jobs.cancel(waiting.id)
    assert cancelled.status == "cancelled" and cancelled.finished_at is not None
    with pytest.raises(openai.BadRequestError, match="has already ended"):
        client.fine_tuning.jobs.cancel(waiting.id)


def test_a_failed_jobs_error_is_returned(client: OpenAI) -> None:
    job = create(client)
    life.finish(life.claim(), JobStatus.FAILED, reason=Reason.OUT_OF_MEMORY, message="The GPU was full.")
    failed = client.fine_tuning.jobs.retrieve(job.id)
    assert failed.status == "failed" and failed.error is not None
    assert (failed.error.code, failed.error.message) == ("out_of_memory", "The GPU was full.")
    newest = client.fine_tuning.jobs.list_events(job.id).data[0]
    assert (newest.level, newest.message) == ("error", "Failed: The GPU was full.")


def test_events_and_metrics_are_one_list_from_new_to_old(client: OpenAI) -> None:
    job = create(client)
    with session_scope() as session:
        (submission,) = life.history(uuid(job))
        rows = [(step, submission.ts, {"loss/total": step / 8, "x/y": "NaN"}) for step in (1, 2, 3)]
        metrics.upsert(session, uuid(job), rows)
    client.fine_tuning.jobs.pause(job.id)
    listed = list(client.fine_tuning.jobs.list_events(job.id, limit=1))  # page by page
    assert [event.id for event in listed[2:]] == ["ftmetrics-3", "ftmetrics-2", "ftmetrics-1"]
    assert [(event.type, event.message) for event in listed[:3]] == [
        ("message", "Paused"),
        ("message", "Submitted"),
        ("metrics", "Step 3: loss/total=0.375"),
    ]
    assert listed[2].data == {"step": 3, "total_steps": None, "loss/total": 0.375, "x/y": "NaN"}
    assert listed == client.fine_tuning.jobs.list_events(job.id, limit=100).data
    for after in ("x", "ftevent-99999999", "ftmetrics-9", "ftmetrics-99999999999"):
        with pytest.raises(openai.BadRequestError) as error:
            client.fine_tuning.jobs.list_events(job.id, after=after)
        assert error.value.param == "after"


def test_a_checkpoint_is_a_model_for_another_job(client: OpenAI, api: httpx.Client) -> None:
    job = create(client, suffix="a b")
    paths = [life.checkpoint(uuid(job), step) for step in (1, 2, 3)]
    with session_scope() as session:
        for step, path in enumerate(paths, start=1):
            checkpoints.record(session, uuid(job), step, str(path), step == 2, {"validation/accuracy": 0.5}, [])
    kept = list(client.fine_tuning.jobs.checkpoints.list(job.id, limit=1))
    assert [one.step_number for one in kept] == [3, 2, 1]
    assert kept[0].fine_tuned_model_checkpoint == f"ft:tiny-vlm:a b:{uuid(job).hex}:step-3"
    assert (kept[0].metrics.step, kept[0].fine_tuning_job_id) == (3, job.id)
    assert kept[0].metrics.model_dump()["validation/accuracy"] == 0.5
    later = create(client, model=kept[2].fine_tuned_model_checkpoint)
    begins = api.get(f"/v1/jobs/{uuid(later)}").json()["spec"]["model"]
    assert (begins["from_job"], begins["checkpoint"]) == (str(uuid(job)), 1)
    with pytest.raises(openai.BadRequestError, match="keeps no checkpoint of step 7") as error:
        create(client, model=f"ft:tiny-vlm:a b:{uuid(job).hex}:step-7")
    assert error.value.param == "model"
    with pytest.raises(openai.BadRequestError) as error:
        client.fine_tuning.jobs.checkpoints.list(job.id, after="x")
    assert error.value.param == "after"


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"model": "gpt-4o-mini"}, "model"),
        ({"model": "/nowhere"}, "model"),
        ({"model": f"ftjob-{UUID(int=5).hex}"}, "model"),
        ({"training_file": "file-x"}, "training_file"),
        ({"validation_file": f"file-{UUID(int=5).hex}"}, "validation_file"),
        ({"suffix": "a/b"}, "suffix"),
        ({"metadata": {"a b": "c"}}, "metadata"),
        ({"metadata": {"a": "c" * 513}}, "metadata"),
        ({"metadata": {"calibrl_gpus": "4"}}, "metadata.calibrl_gpus"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations"),
        ({"method": {"type": "dpo", "dpo": {}}}, "method.type"),
        ({"hyperparameters": {"batch_size": 0}}, "hyperparameters.batch_size"),
        ({"extra_body": {"epochs": 3}}, "epochs"),
        (
            {"method": {"type": "reinforcement", "reinforcement": {"grader": {"type": "python", "source": "1"}}}},
            "method.reinforcement.grader",
        ),
        ({"method": by_trial()}, "method.reinforcement.grader.reference"),  # the chats have no such column
        ({"method": by_trial(compute_multiplier=0.1)}, "method.reinforcement.grader.reference"),
    ],
)
def test_an_unsupported_request_is_a_400_with_its_field(client: OpenAI, options: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        create(client, **options)
    assert error.value.param == param
    assert param in str(error.value)


def test_errors_are_those_of_openais_client(api: httpx.Client, client_of: Client) -> None:
    with People(api) as people:
        api.put("/v1/projects/own", json={})
        api.put("/v1/projects/second", json={})
        viewer = client_of(people.add("viewer", {"default": "viewer"}))
        member = client_of(people.add("member", {"own": "member"}))
        both = people.add("both", {"own": "member", "second": "member"})
    with pytest.raises(openai.AuthenticationError) as unknown:
        client_of("wrong").files.list()
    assert fault(unknown.value) == (None, "invalid_api_key")
    with pytest.raises(openai.PermissionDeniedError) as forbidden:
        upload(viewer)
    assert fault(forbidden.value) == (None, "insufficient_permissions")
    file, admin = upload(member), client_of()
    assert [one.id for one in client_of(project="own").files.list()] == [file.id]
    assert client_of(project="default").files.list().data == []
    assert admin.files.retrieve(file.id) == file
    assert create(member, training_file=file.id).organization_id == "own"  # its only project
    with pytest.raises(openai.NotFoundError) as hidden:
        viewer.files.retrieve(file.id)
    assert fault(hidden.value) == (None, "not_found")
    with pytest.raises(openai.NotFoundError, match="There is no project own"):
        viewer.files.list(extra_headers={"OpenAI-Project": "own"})
    with pytest.raises(openai.BadRequestError, match="you belong to own, second") as several:
        upload(client_of(both))
    assert several.value.param == "OpenAI-Project"
    assert upload(client_of(both, project="second")).id != file.id
    with pytest.raises(openai.BadRequestError, match="OpenAI-Project"):
        client_of(project="proj_Abc").files.list()
    with pytest.raises(openai.NotFoundError, match="There is no fine-tuning job"):
        admin.fine_tuning.jobs.retrieve("ftjob-x")
    with pytest.raises(openai.NotFoundError, match="There is nothing at"):
        admin.fine_tuning.alpha.graders.validate(grader=GRADER)
    refused(api.get("/v1/jobs/x"), 422)  # elsewhere nothing has changed


def test_too_many_requests_and_too_long_bodies_are_refused(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBRL_REQUESTS_AT_ONCE", "2")
    monkeypatch.setenv("CALIBRL_REQUESTS_PER_SECOND", "0.001")
    monkeypatch.setenv("CALIBRL_MAX_UPLOAD_BYTES", "100")
    get_settings.cache_clear()
    with serving() as api, OpenAI(base_url=f"{api.base_url}/v1", api_key=API_KEY, max_retries=0) as client:
        with pytest.raises(openai.APIStatusError) as large:
            client.files.create(file=("a.jsonl", b"x" * 20_000), purpose="fine-tune")
        assert (large.value.status_code, fault(large.value)) == (413, (None, None))
        client.files.list()
        with pytest.raises(openai.RateLimitError) as often:
            client.files.list()
        assert fault(often.value) == (None, "rate_limit_exceeded")


def test_a_database_that_is_away_is_an_error_of_the_servers(client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    life.run("ALTER TABLE datasets RENAME TO elsewhere")
    with pytest.raises(openai.InternalServerError) as error:
        client.files.list()
    assert error.value.type == "server_error"


def wake() -> None:
    """Run the task of a wake-up in this process."""
    from worker.tasks import wake as task  # reads the settings

    task()


def test_the_client_follows_a_run_to_its_end(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("CALIBRL_TRAINER", "tests.support.fake_trainer")
    monkeypatch.setenv("CALIBRL_QUICK_STARTS", "false")
    monkeypatch.setenv("CALIBRL_WORKER_NAME", "tester")
    get_settings.cache_clear()
    life.machine("tester", cpu_slots=1)
    with serving() as api, OpenAI(base_url=f"{api.base_url}/v1", api_key=API_KEY, max_retries=0) as client:
        file = upload(client, GRADED)
        job = create(client, training_file=file.id, validation_file=file.id, method=by_trial(batch_size=4), suffix="x")
        wake()
        done = client.fine_tuning.jobs.retrieve(job.id)
        assert done.status == "succeeded" and done.finished_at is not None
        assert done.fine_tuned_model == f"ft:tiny-vlm:x:{uuid(job).hex}"
        listed = list(client.fine_tuning.jobs.list_events(job.id))
        assert listed[0].message == "Succeeded" and listed[-1].message == "Submitted"
        assert [event.data["step"] for event in listed if event.type == "metrics"] == [6, 5, 4, 3, 2, 1]  # type: ignore[index]
        assert any(event.message.startswith("Step 6/6: ") for event in listed)
        kept = client.fine_tuning.jobs.checkpoints.list(job.id).data
        assert [one.step_number for one in kept] == [6, 4, 2]  # the ends of the epochs
        again = create(client, training_file=file.id, model=str(done.fine_tuned_model))
        wake()
        assert client.fine_tuning.jobs.retrieve(again.id).status == "succeeded"
    config = TrainConfig.model_validate_json((get_settings().run_dir(uuid(job), 1) / "config.json").read_text())
    examples = data.load(config.data)
    assert [(one.answer, one.expert, len(one.images)) for one in examples[3:5]] == [
        ("4", None, 1),
        ("5", "It is 5.", 1),
    ]
    begun = TrainConfig.model_validate_json((get_settings().run_dir(uuid(again), 1) / "config.json").read_text())
    assert begun.model.path.endswith("step-000006")  # type: ignore[union-attr]
