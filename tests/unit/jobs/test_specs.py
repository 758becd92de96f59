"""Faults in the files of a spec, and the config made from it. No database: jobs are made by hand."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError

from calibrl.schemas import AnySpec, HubModel, JobCheckpoint, JobStatus, KnownData, Reason, job_spec_adapter
from calibrl_core.auditing.settings import AuditConfig
from calibrl_core.config import EvaluateConfig, PathModel, TrainConfig
from calibrl_core.data.schema import Columns, FileData
from jobs.errors import FieldError
from jobs.models import Dataset, Job
from jobs.settings import get_settings
from jobs.specs import checks
from jobs.specs.references import References
from jobs.specs.trainer_config import SpecNoLongerValid, trainer_config

TRAIN: dict[str, Any] = {
    "kind": "train",
    "name": "a job",
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits"},
    "steps": 5,
}
EVALUATE: dict[str, Any] = {
    "kind": "evaluate",
    "name": "a job",
    "models": [{"builtin": "tiny-vlm"}],
    "data": [{"builtin": "digits", "split": "test"}],
}


AUDIT: dict[str, Any] = {
    "kind": "audit",
    "name": "a job",
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits"},
}


@pytest.fixture(autouse=True)
def everything_allowed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Jobs can read any folder here: the refused ones are tested over HTTP, with the hostile inputs."""
    monkeypatch.setenv("CALIBRL_ALLOWED_ROOTS", "/")
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def spec(base: dict[str, Any] = TRAIN, **changes: Any) -> Any:
    return job_spec_adapter.validate_python({**base, **changes})


def nowhere(model: JobCheckpoint | HubModel) -> Path:
    raise AssertionError("no job to resolve")


def no_data(choice: KnownData) -> FileData:
    raise AssertionError("no dataset to find")


def dependencies(given: AnySpec) -> frozenset[UUID]:
    return References.of(given).dependencies


def file_problems(given: AnySpec) -> list[FieldError]:
    return checks.file_problems(References.of(given))


def rows(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_from_job_is_a_dependency() -> None:
    first, second, third = uuid4(), uuid4(), uuid4()
    assert dependencies(spec(model={"from_job": str(first)}, depends_on=[str(second)])) == {first, second}
    models = [{"from_job": str(first)}, {"builtin": "tiny-vlm"}, {"from_job": str(third)}]
    assert dependencies(spec(EVALUATE, models=models)) == {first, third}


def test_the_core_gets_its_settings_and_paths() -> None:
    job = uuid4()
    stored = spec(model={"from_job": str(job), "checkpoint": "last"}, labels={"team": "x"}).model_dump(mode="json")
    config = trainer_config(stored, lambda model: Path(f"/runs/{model.from_job}/{model.checkpoint}"), no_data, nowhere)
    assert config == TrainConfig.model_validate(config).model_dump(mode="json")
    assert config["model"]["path"] == f"/runs/{job}/last"
    assert config["steps"] == 5

    stored = spec(EVALUATE, models=[{"from_job": str(job)}, {"path": "/m"}]).model_dump(mode="json")
    config = trainer_config(stored, lambda model: Path("/chosen"), no_data, nowhere)
    models = EvaluateConfig.model_validate(config).models
    assert [model.path for model in models if isinstance(model, PathModel)] == ["/chosen", "/m"]


def test_an_audit_gets_its_model_and_data() -> None:
    job = uuid4()
    given = spec(AUDIT, model={"from_job": str(job)}, data={"path": "/d.jsonl"}, max_nll=1.5, rollout={"group_size": 4})
    assert dependencies(given) == {job}
    config = trainer_config(given.model_dump(mode="json"), lambda model: Path("/chosen"), no_data, nowhere)
    parsed = AuditConfig.model_validate(config)
    assert isinstance(parsed.model, PathModel) and isinstance(parsed.data, FileData)
    assert (parsed.model.path, parsed.data.path) == ("/chosen", "/d.jsonl")
    assert (parsed.max_nll, parsed.rollout.group_size) == (1.5, 4)


def test_an_audit_of_data_without_experts_is_refused(tmp_path: Path) -> None:
    bare = {"path": str(rows(tmp_path / "bare.jsonl", {"question": "1+1?", "answer": "2"}))}
    (problem,) = file_problems(spec(AUDIT, data=bare))
    assert problem.field == "data.path"
    assert "this job needs experts: add them, or name their column in data.columns.expert" in problem.message
    some = rows(
        tmp_path / "some.jsonl", {"question": "1+1?", "answer": "2"}, {"question": "q", "answer": "2", "expert": "2"}
    )
    assert file_problems(spec(AUDIT, data={"path": str(some)})) == []


def test_a_stored_spec_that_no_longer_validates_is_a_bad_spec() -> None:
    with pytest.raises(SpecNoLongerValid, match="no_such_setting") as caught:
        trainer_config({**TRAIN, "no_such_setting": 1}, nowhere, no_data, nowhere)
    assert caught.value.reason is Reason.BAD_SPEC


def test_files_that_are_there_are_fine(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    data = rows(tmp_path / "d.jsonl", {"question": "1+1?", "answer": "2", "expert": "two"})
    model = {"path": str(tmp_path)}
    assert file_problems(spec(model=model, data={"path": str(data)})) == []
    rows(tmp_path / "shards.jsonl", {"question": "1+1?", "answer": "2", "expert": "two"})
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards.jsonl").rename(tmp_path / "shards/A.JSONL")
    assert file_problems(spec(data={"path": str(tmp_path / "shards")})) == []
    (tmp_path / "model.gguf").write_bytes(b"")
    assert file_problems(spec(model={"path": str(tmp_path / "model.gguf")})) == []


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"model": {"path": "/no/such"}}, "model.path", "there is no folder /no/such"),
        ({"model": {"path": "relative"}}, "model.path", "absolute"),
        ({"model": {"path": "/" + "x" * 400}}, "model.path", "no folder"),
        ({"model": {"path": "/no/such.gguf"}}, "model.path", "no file"),
        ({"data": {"path": "/no/such.jsonl"}}, "data.path", "no file"),
        ({"data": {"path": "rows.jsonl"}}, "data.path", "absolute"),
        ({"data": {"path": "/" + "x" * 400 + ".jsonl"}}, "data.path", "no file"),
        ({"data": {"path": "/etc/passwd"}}, "data.path", "jsonl"),
        ({"validation": {"data": {"path": "/no.parquet"}}}, "validation.data.path", "no file"),
    ],
)
def test_unusable_files_are_refused(changes: dict[str, Any], field: str, message: str) -> None:
    (problem,) = file_problems(spec(**changes))
    assert problem.field == field
    assert message in problem.message


def test_every_file_of_an_evaluation_is_looked_at(tmp_path: Path) -> None:
    models = [{"path": "/no/a"}, {"builtin": "tiny-vlm"}, {"path": "/no/b"}]
    data = [{"builtin": "digits", "split": "test"}, {"path": "/no/c.jsonl"}]
    found = file_problems(spec(EVALUATE, models=models, data=data))
    assert [problem.field for problem in found] == ["models.0.path", "models.2.path", "data.1.path"]


def test_experts_are_required_only_in_the_train_data(tmp_path: Path) -> None:
    bare = {"path": str(rows(tmp_path / "bare.jsonl", {"question": "1+1?", "answer": "2"}))}
    (problem,) = file_problems(spec(data=bare, validation={"data": bare}))
    assert problem.field == "data.path"
    assert "expert" in problem.message
    assert file_problems(spec(data=bare, algorithm={"type": "grpo"})) == []


def test_a_verifier_must_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "org-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: org\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[calibrl.verifiers]\norg-geometry = no_such_module:verify\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugins = [{"type": "plugin", "name": name} for name in ("org-geometry", "org-algebra")]
    (problem,) = checks.plugin_problems(spec(rewards=[{"type": "math"}, *plugins]))
    assert problem.field == "rewards.2"
    assert "no verifier 'org-algebra' is installed" in problem.message
    assert "org-geometry 1.2" in problem.message
    (problem,) = checks.plugin_problems(spec(EVALUATE, rewards=[{**plugins[0], "version": "2"}]))
    assert "version 1.2, not 2" in problem.message


def test_text_that_postgres_can_not_keep() -> None:
    found = checks.text_problems(spec(labels={"team": "a\x00b"}, data={"path": "/x\x00.jsonl"}))
    assert {problem.field for problem in found} == {"labels.team", "data.path"}
    assert checks.text_problems(spec(labels={"team": "ab"})) == []


def test_jobs_that_cannot_be_parents_are_refused() -> None:
    trained, evaluation, failed, unknown, audited = (uuid4() for _ in range(5))
    known = {
        trained: Job(id=trained, kind="train", status=JobStatus.RUNNING),
        evaluation: Job(id=evaluation, kind="evaluate", status=JobStatus.SUCCEEDED),
        audited: Job(id=audited, kind="audit", status=JobStatus.SUCCEEDED),
        failed: Job(id=failed, kind="train", status=JobStatus.FAILED),
    }
    models = [{"from_job": str(id)} for id in (trained, evaluation, failed, unknown, audited)]
    depends_on = [str(evaluation), str(unknown), str(failed)]
    found = checks.job_problems(References.of(spec(EVALUATE, models=models, depends_on=depends_on)), known)
    assert found == [
        FieldError("depends_on.1", f"job {unknown} does not exist"),
        FieldError("depends_on.2", f"job {failed} is failed and cannot succeed any more"),
        FieldError("models.1.from_job", f"job {evaluation} is an evaluation, which writes no checkpoints"),
        FieldError("models.2.from_job", f"job {failed} is failed and cannot succeed any more"),
        FieldError("models.3.from_job", f"job {unknown} does not exist"),
        FieldError("models.4.from_job", f"job {audited} is an audit, which writes no checkpoints"),
    ]


def test_servers_leave_a_gpu_to_the_trainer() -> None:
    served = {"engine": "vllm_server", "server_gpus": 2}
    given = [spec(rollout=served, resources={"gpus": gpus}) for gpus in (0, 2, 3)]
    problems = [checks.resource_problems(one, References.of(one)) for one in given]
    assert (problems[0], problems[2]) == ([], [])
    (problem,) = problems[1]
    assert problem.field == "rollout.server_gpus"
    assert "raise resources.gpus" in problem.message
    several = spec(rollout=served, resources={"machines": 2, "gpus": 3})
    (problem,) = checks.resource_problems(several, References.of(several))
    assert (problem.field, "set resources.machines to 1" in problem.message) == ("rollout.server_gpus", True)


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"resources": {"gpus": 4}, "prompts_per_step": 3}, "prompts_per_step", r"\(3\) must not .* processes \(4\)"),
        ({"parallel": "fsdp", "cpu_offload": True}, "cpu_offload", "needs several processes: raise"),
        (
            {"parallel": "fsdp", "shard_size": 3, "resources": {"gpus": 4}},
            "shard_size",
            r"\(3\) must divide the number of processes \(4\)",
        ),
        ({"model": {"builtin": "tiny-vlm", "attention": "flex"}}, "model.attention", "flex needs a GPU: set"),
        (
            {"model": {"builtin": "tiny-vlm", "vision_attention": "flash_attention_2"}},
            "model.vision_attention",
            "flash_attention_2 needs a GPU: set",
        ),
    ],
    ids=str,
)
def test_settings_that_need_other_resources_are_refused(changes: dict[str, Any], field: str, says: str) -> None:
    mini_batches = {"algorithm": {"type": "grpo", "mini_batches": 1}}
    given = spec(**mini_batches | changes)
    (problem,) = checks.resource_problems(given, References.of(given))
    assert problem.field == field
    assert re.search(says, problem.message)
    enough = spec(**mini_batches, parallel="fsdp", cpu_offload=True, shard_size=2, resources={"gpus": 4})
    assert checks.resource_problems(enough, References.of(enough)) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rollout": {"engine": "vllm_server"}, "validation": {"temperature": 3.0}}, r"validation\.temperature: "),
        (
            {"precision": "float32", "model": {"builtin": "tiny-vlm", "attention": "flash_attention_2"}},
            r"model\.attention: flash_attention_2 computes in bfloat16 only",
        ),
        ({"model": {"builtin": "tiny-vlm", "quantization": "nf4"}}, r"model\.quantization: nf4 weights cannot be"),
    ],
    ids=str,
)
def test_what_the_trainer_refuses_in_a_config_a_spec_does_too(changes: dict[str, Any], named: str) -> None:
    if "validation" in changes:
        changes = changes | {"validation": {"data": {"builtin": "digits"}, **changes["validation"]}}
    with pytest.raises(ValidationError, match=named):
        spec(**changes)
    config = {name: value for name, value in (TRAIN | changes).items() if name not in ("kind", "name")}
    with pytest.raises(ValidationError, match=named):
        TrainConfig.model_validate(config)


def test_a_curriculum_needs_pass_ratios_in_the_checked_rows(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "1"}
    some = rows(tmp_path / "some.jsonl", {**row, "pass_ratio": 0.5}, row)
    every = rows(tmp_path / "every.jsonl", {**row, "pass_ratio": 0.5})
    by_ratio: dict[str, Any] = {"curriculum": "pass_ratio", "algorithm": {"type": "grpo"}}
    (problem,) = file_problems(spec(data={"path": str(some)}, **by_ratio))
    assert problem.field == "data.path"
    assert "1 of the 2 checked rows of" in problem.message
    assert "have no pass_ratio: fill this column, or choose another curriculum" in problem.message
    assert file_problems(spec(data={"path": str(every)}, **by_ratio)) == []
    assert file_problems(spec(data={"path": str(some)}, algorithm={"type": "grpo"})) == []
    assert file_problems(spec(data={"path": str(some)}, prompts={"too_long": "drop"}, **by_ratio)) == []
    (problem,) = file_problems(spec(**by_ratio))
    assert (problem.field, problem.message) == (
        "curriculum",
        "rows of digits have no pass_ratio: choose another curriculum",
    )


def test_the_trainer_gets_the_permissions_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBRL_SANDBOX_PACKAGES", "numpy,sympy")
    monkeypatch.setenv("CALIBRL_FUNCTIONS_WITHOUT_SANDBOX", "true")
    get_settings.cache_clear()
    config = trainer_config(spec().model_dump(mode="json"), nowhere, no_data, nowhere)
    assert config["sandbox"] == {"packages": ["numpy", "sympy"], "plain_processes": True}


def test_an_answer_that_no_completion_can_earn_is_named_with_its_row(tmp_path: Path) -> None:
    """The same answers are no problem in validation rows, or if the algorithm samples nothing."""
    path = tmp_path / "own.jsonl"
    answers = ("2", "blue", "blue", "2 apples and 3")
    rows(path, *({"question": "q", "answer": answer, "expert": "e"} for answer in answers))
    data, numeric = {"path": str(path)}, [{"type": "numeric"}]
    (problem,) = file_problems(spec(data=data, rewards=numeric, algorithm={"type": "grpo"}))
    first, second = problem.message.split("; /")
    assert problem.field == "data.path"
    assert first.startswith(f"{path}, row 2: no completion can earn the answer 'blue': the reward numeric refuses")
    assert "row 4: no completion can earn the answer '2 apples and 3'" in second
    assert file_problems(spec(data=data, algorithm={"type": "grpo"})) == []
    assert file_problems(spec(data=data, rewards=numeric, algorithm={"type": "sft"})) == []
    assert file_problems(spec(validation={"data": data}, rewards=numeric, algorithm={"type": "grpo"})) == []


def test_a_file_needs_answers_only_if_a_reward_reads_them(tmp_path: Path) -> None:
    data = {"path": str(tmp_path / "a.jsonl")}
    (tmp_path / "a.jsonl").write_text(json.dumps({"question": "q"}) + "\n")
    polite = [{"type": "string_check", "reference": "{{ item.word }}"}]
    grpo = {"algorithm": {"type": "grpo"}}
    (problem,) = file_problems(spec(data=data, **grpo))
    assert problem.field == "data.path" and "has the columns 'question', which fit no known format" in problem.message
    assert file_problems(spec(data=data, rewards=polite, **grpo)) == []
    assert file_problems(spec(EVALUATE, data=[data], rewards=polite)) == []
    assert len(file_problems(spec(EVALUATE, data=[data]))) == 1
    assert len(file_problems(spec(validation={"data": data}, **grpo))) == 1


def test_an_uploaded_dataset_needs_answers_only_if_a_reward_reads_them() -> None:
    columns = Columns().model_dump()
    dataset = Dataset(
        id=uuid4(),
        project="default",
        name="d",
        format="jsonl",
        columns=columns,
        read_as="auto",
        has_columns=["question"],
    )
    changes = {"data": {"dataset": str(dataset.id)}, "algorithm": {"type": "grpo"}}

    def found(given: AnySpec) -> list[FieldError]:
        return checks.data_problems(given, References.of(given), {dataset.id: dataset})

    (problem,) = found(spec(**changes))
    assert problem.field == "data.answer" and "fit no known format" in problem.message
    polite = [{"type": "string_check", "reference": "{{ item.word }}"}]
    assert found(spec(**changes, rewards=polite)) == []


def test_rows_that_cannot_be_earned_may_be_dropped_but_not_all(tmp_path: Path) -> None:
    """A row that is left out needs no pass_ratio either."""
    good = {"question": "q", "answer": "2", "pass_ratio": 0.5}
    some = rows(tmp_path / "some.jsonl", good, {"question": "q", "answer": "blue"})
    drops: dict[str, Any] = {"rewards": [{"type": "numeric"}], "algorithm": {"type": "grpo"}, "unearnable": "drop"}
    assert file_problems(spec(data={"path": str(some)}, **drops, curriculum="pass_ratio")) == []
    every = rows(tmp_path / "every.jsonl", {"question": "q", "answer": "blue"}, {"question": "p", "answer": "blue"})
    (problem,) = file_problems(spec(data={"path": str(every)}, **drops))
    assert problem.message.startswith(f"all 2 rows would be dropped: {every}, row 1: no completion can earn")


def test_rows_that_are_left_out_need_no_pass_ratio(tmp_path: Path) -> None:
    """Without samples only rows with an expert are used. Of rows that can be dropped some stay."""
    row = {"question": "q", "answer": "1"}
    bare = rows(tmp_path / "bare.jsonl", row, {**row, "expert": "e", "pass_ratio": 0.5})
    by_ratio: dict[str, Any] = {"curriculum": "pass_ratio", "algorithm": {"type": "sft"}}
    assert file_problems(spec(data={"path": str(bare)}, **by_ratio)) == []
    expert = rows(tmp_path / "expert.jsonl", {**row, "pass_ratio": 0.5}, {**row, "expert": "e"})
    drops = {"prompts": {"too_long": "drop"}}
    for changes in ({}, drops):
        (problem,) = file_problems(spec(data={"path": str(expert)}, **by_ratio, **changes))
        assert problem.message.startswith("1 of the 2 checked rows of")
    some = rows(tmp_path / "some.jsonl", {**row, "expert": "e", "pass_ratio": 0.5}, {**row, "expert": "e"})
    assert file_problems(spec(data={"path": str(some)}, **by_ratio, **drops)) == []
    (problem,) = file_problems(spec(**by_ratio))
    assert problem.field == "curriculum"


def test_a_spec_that_is_too_large_names_its_largest_field(monkeypatch: pytest.MonkeyPatch) -> None:
    given = spec(labels={"a": "x" * 60}, prompts={"system": "y" * 3000})
    assert checks.size_problems(given) == []
    sizes = {name: len(json.dumps(value)) for name, value in given.model_dump(mode="json").items()}
    total = sum(sizes.values())
    monkeypatch.setattr(checks, "MAX_SPEC_BYTES", total)
    assert checks.size_problems(given) == []
    monkeypatch.setattr(checks, "MAX_SPEC_BYTES", total - 1)
    (fault,) = checks.size_problems(given)
    assert fault.field == "prompts" and f"has {total} bytes as JSON, at most {total - 1}" in fault.message
