"""From OpenAI's requests to specs, from jobs to OpenAI's objects, without any service."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from calibrl.schemas import Dataset, JobStatus, KnownData, TrainSpec
from calibrl.schemas.openai import NewFineTuningJob
from calibrl_core.algorithms import CalibRL
from jobs import models
from jobs.errors import FieldError, Invalid, NotFound
from jobs.openai import objects
from jobs.openai.names import fine_tuned, id_of, origin, uuid_of
from jobs.openai.requests import in_request, spec_of

GRADER_AT, SETTINGS_AT = "method.reinforcement.grader", "method.reinforcement.hyperparameters"
JOB, FILE, HELD_OUT = UUID(int=1), UUID(int=2), UUID(int=3)
GRADER = {
    "type": "string_check",
    "name": "equal",
    "input": "{{sample.output_text}}",
    "reference": "{{ item.reference_answer }}",
    "operation": "eq",
}


def dataset(id: UUID = FILE, **changes: Any) -> Dataset:
    known: dict[str, Any] = {
        "id": id,
        "project": "vision",
        "user": "ada",
        "name": "train",
        "format": "jsonl",
        "sha256": "0",
        "bytes": 9,
        "rows": 100,
        "columns": {},
        "has_columns": ["messages", "reference_answer"],
        "has_experts": True,
        "hub": None,
        "created_at": datetime.now(UTC),
    }
    return Dataset.model_validate(known | changes)


def request(**changes: Any) -> NewFineTuningJob:
    return NewFineTuningJob.model_validate({"model": "tiny-vlm", "training_file": id_of("file", FILE), **changes})


def reinforcement(grader: dict[str, Any] | None = None, **hyperparameters: Any) -> dict[str, Any]:
    part = {"grader": GRADER if grader is None else grader, "hyperparameters": hyperparameters}
    return {"type": "reinforcement", "reinforcement": part}


def spec(new: NewFineTuningJob, **options: Any) -> TrainSpec:
    given = {"training": dataset(), "validation": None, "begins_with": None} | options
    return TrainSpec.model_validate(spec_of(new, **given))


def refused(new: NewFineTuningJob, **options: Any) -> FieldError:
    with pytest.raises(Invalid) as error:
        spec(new, **options)
    (fault,) = error.value.errors
    return fault


def test_supervised_is_the_default_and_auto_means_three_epochs() -> None:
    made = spec(request())
    assert (made.algorithm.type, made.project, made.name) == ("sft", "vision", "tiny-vlm-sft")
    assert (made.prompts_per_step, made.steps, made.optimizer.lr) == (100, 3, 1e-5)  # all 100 rows per step
    assert (made.checkpoints.every_steps, made.checkpoints.keep_last) == (1, 3)
    assert made.data == KnownData(dataset=FILE)
    assert made.rollout.max_completion_tokens == 64


def test_hyperparameters_become_steps() -> None:
    chosen = {"n_epochs": 2, "batch_size": 30, "learning_rate_multiplier": 2}
    for given in (
        {"hyperparameters": chosen},
        {"method": {"type": "supervised", "supervised": {"hyperparameters": chosen}}},
    ):
        made = spec(request(**given))
        # 100 rows in batches of 30 are 3.33 an epoch, 6.67 in two
        assert (made.prompts_per_step, made.steps, made.checkpoints.every_steps) == (30, 7, 4)
        assert made.optimizer.lr == pytest.approx(2e-5)
    automatic = dict.fromkeys(chosen, "auto")
    assert spec(request(hyperparameters=automatic)) == spec(request())


def test_reinforcement_uses_the_graders_column_and_calibrl_with_experts() -> None:
    method = reinforcement(batch_size=2, compute_multiplier=0.4, eval_interval=5, eval_samples=3)
    made = spec(request(method=method, validation_file="v", seed=7), validation=dataset(HELD_OUT))
    assert isinstance(made.algorithm, CalibRL) and made.algorithm.mini_batches == 2
    assert made.model_dump(mode="json")["data"]["answer"] == "reference_answer"
    assert [reward.type for reward in made.rewards] == ["exact"]
    assert (made.rollout.group_size, made.optimizer.lr, made.seed) == (4, 1e-6, 7)
    assert made.validation is not None
    assert (made.validation.every_steps, made.validation.samples) == (5, 3)
    assert made.validation.data == KnownData(dataset=HELD_OUT, answer="reference_answer")


def test_columns_that_count_anyway_are_not_named() -> None:
    verl = dataset(has_columns=["prompt", "reward_model"])
    truth = request(method=reinforcement(GRADER | {"reference": "{{item.reward_model.ground_truth}}"}))
    plain = request(method=reinforcement(GRADER | {"reference": "{{ item.answer }}"}))
    assert spec_of(truth, verl, None, None)["data"] == {"dataset": str(FILE)}
    assert spec_of(plain, dataset(has_columns=["question", "answer"]), None, None)["data"] == {"dataset": str(FILE)}
    without = dataset(has_experts=False)
    assert spec_of(request(method=reinforcement()), without, None, None)["algorithm"]["type"] == "grpo"


def test_metadata_chooses_and_is_kept() -> None:
    metadata = {"calibrl_algorithm": "dapo", "calibrl_gpus": "2", "calibrl_max_completion_tokens": "99", "Run_id": "é"}
    made = spec(request(method=reinforcement(), metadata=metadata))
    assert (made.algorithm.type, made.resources.gpus, made.rollout.max_completion_tokens) == ("dapo", 2, 99)
    assert made.labels == metadata


def test_models_of_other_jobs() -> None:
    name = fine_tuned({"path": "/models/a:b"}, "x", JOB, 40)
    assert name == f"ft:/models/a-b:x:{JOB.hex}:step-40"
    assert origin(name) == (JOB, 40)
    assert origin(id_of("ftjob", JOB)) == origin(f"ftjob-{JOB}") == (JOB, "best")
    assert origin("tiny-vlm") is origin("ft:a:b:c") is origin(f"ft:a:{'-' * 32}") is None
    again = fine_tuned({"from_job": str(JOB), "checkpoint": 40}, "y", FILE)
    assert origin(again) == (FILE, "best")
    made = spec(request(model=name), begins_with={"rollout": {"max_completion_tokens": 17}})
    assert made.model_dump(mode="json")["model"]["checkpoint"] == 40
    assert (made.rollout.max_completion_tokens, made.name) == (17, "ft-sft")
    assert spec(request(model="/models/Qwen 2"), begins_with=None).name == "Qwen-2-sft"


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"model": "gpt-4o"}, "model", "unknown model 'gpt-4o'"),
        (
            {"metadata": {"calibrl_algorithm": "grpo"}},
            "metadata.calibrl_algorithm",
            "supervised fine-tuning supports sft",
        ),
        ({"metadata": {"calibrl_gpu": "1"}}, "metadata.calibrl_gpu", "unknown setting"),
        ({"metadata": {"calibrl_gpus": "one"}}, "metadata.calibrl_gpus", "whole number"),
        ({"method": {"type": "reinforcement"}}, "method.reinforcement", "it contains the grader"),
        ({"method": reinforcement() | {"supervised": {}}}, "method.supervised", "must be absent if method.type is"),
        (
            {"method": reinforcement() | {"type": "supervised"}},
            "method.reinforcement",
            "must be absent if method.type is",
        ),
        ({"method": {"type": "supervised"}, "hyperparameters": {}}, "hyperparameters", "method.supervised"),
        (
            {"method": reinforcement(GRADER | {"reference": "{{ item.hex }}"})},
            "method.reinforcement.grader.reference",
            "no row has a column 'hex'; available are 'messages', 'reference_answer'",
        ),
        (
            {"method": reinforcement(eval_samples=2)},
            "method.reinforcement.hyperparameters.eval_samples",
            "needs a validation_file",
        ),
    ],
)
def test_contradictory_requests_are_refused(changes: dict[str, Any], field: str, text: str) -> None:
    fault = refused(request(**changes))
    assert fault.field == field
    assert text in fault.message


@pytest.mark.parametrize(
    ("changes", "at"),
    [
        ({"method": {"type": "dpo"}}, "method.type"),
        ({"method": reinforcement({"type": "endpoint", "url": "http://a"})}, GRADER_AT),
        ({"method": reinforcement(GRADER | {"operation": "regex"})}, f"{GRADER_AT}.string_check.operation"),
        ({"method": reinforcement(GRADER | {"input": "{{ sample.tools }}"})}, f"{GRADER_AT}.string_check.input"),
        ({"method": reinforcement(reasoning_effort="high")}, f"{SETTINGS_AT}.reasoning_effort"),
        ({"integrations": [{"type": "wandb"}]}, "integrations"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": "2"}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"beta": 1.0}}, "hyperparameters.beta"),
        ({"epochs": 1}, "epochs"),
    ],
)
def test_unsupported_options_are_refused(changes: dict[str, Any], at: str) -> None:
    with pytest.raises(ValidationError) as refused:
        request(**changes)
    (fault,) = refused.value.errors()
    assert ".".join(map(str, fault["loc"])) == at


def test_spec_errors_are_reported_in_the_requests_fields() -> None:
    new = request(method=reinforcement())
    specs = ("name", "labels.a b", "model.path", "data.dataset", "data.answer", "optimizer.lr", "rollout.group_size")
    found = in_request(new, [FieldError(field, "x") for field in (*specs, "validation.data.dataset", "limits")])
    settings = "method.reinforcement.hyperparameters"
    assert [fault.field for fault in found] == [
        "suffix",
        "metadata",
        "model",
        "training_file",
        "method.reinforcement.grader.reference",
        f"{settings}.learning_rate_multiplier",
        f"{settings}.compute_multiplier",
        "validation_file",
        "limits",
    ]


def job(made: TrainSpec, status: JobStatus = JobStatus.QUEUED, **changes: Any) -> models.Job:
    given = {"id": JOB, "name": made.name, "project": "vision", "labels": made.labels, "created_at": datetime.now(UTC)}
    return models.Job(**given | {"status": status, "spec": made.model_dump(mode="json")} | changes)


def test_a_job_shows_the_requested_values() -> None:
    made = spec(request(method=reinforcement(n_epochs=2, batch_size=30), metadata={"a": "b"}, suffix="x"))
    shown = objects.job_object(job(made), {FILE: 100}, None)
    assert (shown.id, shown.model, shown.training_file) == (f"ftjob-{JOB.hex}", "tiny-vlm", id_of("file", FILE))
    assert shown.hyperparameters == {"n_epochs": 2, "batch_size": 30, "learning_rate_multiplier": 1.0}
    assert shown.method["reinforcement"]["grader"]["reference"] == "{{ item.reference_answer }}"
    assert (shown.metadata, shown.fine_tuned_model, shown.error) == ({"a": "b"}, None, None)
    done = objects.job_object(job(made, JobStatus.SUCCEEDED, finished_at=datetime.fromtimestamp(5, UTC)), {}, None)
    assert (done.fine_tuned_model, done.finished_at) == (f"ft:tiny-vlm:x:{JOB.hex}", 5)
    failed = objects.job_object(job(made, JobStatus.FAILED, message="why"), {}, None)
    assert failed.error is not None and (failed.error.code, failed.error.message) == ("failed", "why")


@pytest.mark.parametrize("status", list(JobStatus))
def test_every_status_has_one_of_openais(status: JobStatus) -> None:
    expected = {"waiting": "queued", "pausing": "queued", "paused": "queued", "cancelling": "running"}
    shown = objects.job_object(job(spec(request()), status), {}, 60.0)
    assert shown.status == expected.get(status, status)
    assert (shown.estimated_finish is not None) == (status == "running")


def test_jobs_that_were_posted_elsewhere_can_be_shown() -> None:
    given = {"kind": "train", "name": "n", "model": {"from_job": str(FILE)}, "data": {"builtin": "digits"}, "steps": 5}
    shown = objects.job_object(job(TrainSpec.model_validate(given)), {}, None)
    assert (shown.model, shown.training_file) == (id_of("ftjob", FILE), "digits-train")
    assert shown.method["reinforcement"]["grader"]["name"] == "math + format"
    assert shown.hyperparameters["n_epochs"] is None


def test_ids() -> None:
    assert uuid_of("file", f"file-{FILE.hex}") == uuid_of("file", str(FILE)) == FILE
    with pytest.raises(NotFound, match="There is no file 'ftjob-x'"):
        uuid_of("file", "ftjob-x")
