"""The official client of OpenAI, unchanged, against the served API: jobs, events and checkpoints."""

from uuid import UUID

import httpx
import openai
import pytest
from openai import OpenAI

from calibrl.schemas import JobStatus, Reason
from calibrl_core import data
from calibrl_core.config import TrainConfig
from jobs.db import session_scope
from jobs.repository import checkpoints, metrics
from jobs.settings import get_settings
from tests.support import API_KEY, job_steps
from tests.support.openai_requests import GRADED, GRADER, by_trial, create, fault, upload, uuid
from tests.support.rest import serving, submitted
from tests.support.worker import wake

pytestmark = pytest.mark.integration


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
    chosen = {name: spec["data"][name] for name in ("dataset", "rows", "answer")}
    assert chosen == {"dataset": str(UUID(file.id[5:])), "rows": None, "answer": "reference_answer"}
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
    assert job_steps.status(uuid(job)) == "paused"
    with pytest.raises(openai.BadRequestError, match="is already paused") as error:
        client.fine_tuning.jobs.pause(job.id)
    assert fault(error.value) == (None, "conflict")
    assert client.fine_tuning.jobs.resume(job.id).status == "queued"
    job_steps.claim()
    assert client.fine_tuning.jobs.retrieve(job.id).status == "running"
    assert client.fine_tuning.jobs.pause(job.id).status == "queued"
    assert client.fine_tuning.jobs.cancel(job.id).status == "running"
    assert job_steps.status(uuid(job)) == "cancelling"
    waiting = create(client, model=job.id)
    assert (waiting.status, waiting.model, job_steps.status(uuid(waiting))) == ("queued", job.id, "waiting")
    cancelled = client.fine_tuning.jobs.cancel(waiting.id)
    assert cancelled.status == "cancelled" and cancelled.finished_at is not None
    with pytest.raises(openai.BadRequestError, match="has already ended"):
        client.fine_tuning.jobs.cancel(waiting.id)


def test_a_failed_jobs_error_is_returned(client: OpenAI) -> None:
    job = create(client)
    job_steps.finish(job_steps.claim(), JobStatus.FAILED, reason=Reason.OUT_OF_MEMORY, message="The GPU was full.")
    failed = client.fine_tuning.jobs.retrieve(job.id)
    assert failed.status == "failed" and failed.error is not None
    assert (failed.error.code, failed.error.message) == ("out_of_memory", "The GPU was full.")
    newest = client.fine_tuning.jobs.list_events(job.id).data[0]
    assert (newest.level, newest.message) == ("error", "Failed: The GPU was full.")


def test_events_and_metrics_are_one_list_from_new_to_old(client: OpenAI) -> None:
    job = create(client)
    with session_scope() as session:
        (submission,) = job_steps.history(uuid(job))
        rows = [(step, submission.ts, {"loss/total": step / 8, "x/y": "NaN"}) for step in (1, 2, 3)]
        metrics.upsert(session, uuid(job), rows)
    client.fine_tuning.jobs.pause(job.id)
    listed = list(client.fine_tuning.jobs.list_events(job.id, limit=1))  # page by page
    assert [event.id for event in listed[2:]] == ["ftmetrics-3", "ftmetrics-2", "ftmetrics-1"]
    assert [(event.type, event.message) for event in listed[:3]] == [
        ("message", "Paused"),
        ("message", "Submitted"),
        ("metrics", "Step 3/3: loss/total=0.375"),
    ]
    assert listed[2].data == {"step": 3, "total_steps": 3, "loss/total": 0.375, "x/y": "NaN"}
    assert listed == client.fine_tuning.jobs.list_events(job.id, limit=100).data
    for after in ("x", "ftevent-99999999", "ftmetrics-9", "ftmetrics-99999999999"):
        with pytest.raises(openai.BadRequestError) as error:
            client.fine_tuning.jobs.list_events(job.id, after=after)
        assert error.value.param == "after"


def test_a_checkpoint_is_a_model_for_another_job(client: OpenAI, api: httpx.Client) -> None:
    job = create(client, suffix="a b")
    paths = [job_steps.checkpoint(uuid(job), step) for step in (1, 2, 3)]
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


@pytest.mark.usefixtures("quick_worker")
def test_the_client_follows_a_run_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBRL_QUICK_STARTS", "false")
    get_settings.cache_clear()
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
    examples = data.load(config.sources[0])
    assert [(one.answer, one.expert, len(one.images)) for one in examples[3:5]] == [
        ("4", None, 1),
        ("5", "It is 5.", 1),
    ]
    begun = TrainConfig.model_validate_json((get_settings().run_dir(uuid(again), 1) / "config.json").read_text())
    assert begun.model.path.endswith("step-000006")  # type: ignore[union-attr]
