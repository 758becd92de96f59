"""The description of a study: its checks, its arms, and its jobs."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from pydantic import ValidationError

from calibrl.schemas import StudySpec, job_spec_adapter
from calibrl.schemas.spec_paths import check_path
from calibrl.specfile import SpecError
from calibrl.studies.files import read_study
from jobs.errors import Invalid
from jobs.studies.expansion import NO_JOB, arms, expand

JOB_ID = UUID("11111111-2222-3333-4444-555555555555")
BASE = {
    "model": {"builtin": "tiny-vlm", "freeze_vision": True},
    "data": {"builtin": "digits"},
    "algorithm": {"type": "calibrl", "mini_batches": 1},
    "prompts_per_step": 8,
    "steps": 3,
}
STUDY: dict[str, Any] = {
    "name": "slopes",
    "base": BASE,
    "arms": {"calibrl": {}, "grpo": {"algorithm": {"type": "grpo", "mini_batches": 1}}},
    "seeds": [3, 5],
    "evaluation": {"data": [{"builtin": "digits", "split": "test"}], "rollout": {"samples": 2}},
}


def study(**changes: Any) -> StudySpec:
    return StudySpec.model_validate(STUDY | changes)


def refused(**changes: Any) -> str:
    try:
        expand(study(**changes))
    except Invalid as error:
        return " ".join(f"{one.field}: {one.message}" for one in error.errors)
    except ValidationError as error:
        return " ".join(str(error).split())
    raise AssertionError("accepted")


# ---- Paths


@pytest.mark.parametrize(
    "path",
    ["steps", "algorithm.negative_slope", "rollout.temperature", "rewards.0.weight", "data.rows", "data.1.weight"],
)
def test_fields_of_a_training_spec_are_paths(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("algorithm.negative_slop", "'algorithm' has no field 'negative_slop'; did you mean negative_slope"),
        ("step", "a training spec has no field 'step'; did you mean steps"),
        ("steps.more", "'steps' has no fields"),
        ("rewards.first", "'rewards' is a list; name an item by its number from 0, such as rewards.0"),
        ("rollout..temperature", "'rollout' has no field ''"),
    ],
)
def test_an_unknown_path_is_refused_with_similar_names(path: str, message: str) -> None:
    assert message in refused(arms={"a": {path: 1}})


@pytest.mark.parametrize("path", ["seed", "name", "labels.a", "project"])
def test_an_arm_cannot_set_what_the_study_sets(path: str) -> None:
    assert f"{path!r} cannot differ between arms" in refused(arms={"a": {path: 1}})


# ---- Arms


def test_axes_repeat_each_arm_for_every_combination() -> None:
    axes = {"optimizer.lr": [1e-4, 1e-5], "rewards": [[{"type": "math"}], [{"type": "exact"}]]}
    found = arms(study(arms={"a": {"steps": 4}, "b": {}}, axes=axes))
    assert [arm.name for arm in found] == [
        f"{arm}-lr-{rate}-rewards-{place}" for arm in "ab" for rate in ("0.0001", "1e-05") for place in (1, 2)
    ]
    assert found[1].changes == {"steps": 4, "optimizer.lr": 1e-4, "rewards": [{"type": "exact"}]}
    assert [arm.name for arm in arms(study(arms={}, axes={"steps": [3, 4]}))] == ["base-steps-3", "base-steps-4"]
    assert [arm.name for arm in arms(study(arms={}))] == ["base"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": {"steps": [3, 3]}}, "two arms have the name 'calibrl-steps-3'"),
        ({"axes": {"steps": []}}, "steps: give 1 to 32 values, not 0"),
        ({"axes": {"steps": list(range(3, 20))}}, "the study has 34 arms; at most 32"),
        ({"arms": {f"a{n}": {"steps": n + 1} for n in range(32)}, "seeds": list(range(17))}, "32 arms x 17 seeds, 544"),
        ({"baseline": "gpro"}, "there is no arm 'gpro'; arms: calibrl, grpo"),
        ({"arms": {"a": {}, "b": {"steps": 3}}}, "arms 'a' and 'b' have the same settings"),
        ({"seeds": [1, 1]}, "a seed is given twice"),
        ({"primary": "tset"}, "the evaluation has no dataset 'tset'; datasets: test"),
        ({"stop": {"after_seeds": [2]}}, "stop: name the baseline"),
        ({"stop": {"after_seeds": [2]}, "baseline": "grpo"}, "the study has 2 seeds; the last look must come before"),
        ({"stop": {"after_seeds": [3, 2]}, "baseline": "grpo"}, "must ascend"),
        (
            {"arms": {"a": {"algorithm": {"type": "grpo", "negative_slope": 1}}}},
            "arms.a: algorithm.grpo.negative_sl",
        ),
        ({"arms": {"a": {"steps": 0}}}, "arms.a: steps: Must be at least 1"),
        (
            {"base": BASE | {"rewards": [{"type": "math"}]}, "arms": {"a": {"rewards.1.weight": 2}}},
            "arms.a: 'rewards.1.weight'",
        ),
        (
            {"warm_up": {"changes": {}}, "arms": {"a": {"model.path": "/m"}}},
            "the checkpoint of the warm-up is the model",
        ),
        ({"base": BASE | {"kind": "evaluate"}}, "the base of a study is a training"),
        ({"arm": {}}, "Extra inputs are not permitted"),
    ],
)
def test_a_faulty_study_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in refused(**changes)


# ---- Jobs


def test_each_arm_has_a_training_and_an_evaluation_per_seed() -> None:
    expansion = expand(study())
    assert [(job.part, job.arm, job.seed) for job in expansion.jobs] == [
        (part, arm, seed) for seed in (3, 5) for arm in ("calibrl", "grpo") for part in ("training", "evaluation")
    ]
    training, evaluation = expansion.jobs[2:4]
    assert (training.spec["name"], training.spec["seed"]) == ("slopes grpo seed 3 training", 3)
    assert training.spec["algorithm"]["type"] == "grpo"
    assert training.spec["labels"] == {
        "study": "slopes",
        "study-part": "training",
        "study-arm": "grpo",
        "study-seed": "3",
        "study-digest": training.digest,
    }
    assert (training.needs, evaluation.needs) == (None, training.digest)
    assert evaluation.spec_from(JOB_ID)["models"] == [{"from_job": str(JOB_ID), "checkpoint": "best"}]
    assert evaluation.spec["models"][0]["from_job"] == str(NO_JOB)  # unchanged
    for job in expansion.jobs:
        job_spec_adapter.validate_python(job.spec_from(JOB_ID))


def test_a_warm_up_is_shared_by_all_arms() -> None:
    warm_up = {"changes": {"algorithm": {"type": "sft"}, "steps": 9}, "checkpoint": "last"}
    expansion = expand(study(warm_up=warm_up))
    (shared,) = expansion.of("warm-up")
    assert (shared.spec["algorithm"]["type"], shared.spec["steps"]) == ("sft", 9)
    trainings = list(expansion.of("training"))
    assert {job.needs for job in trainings} == {shared.digest}
    expected = {"from_job": str(JOB_ID), "checkpoint": "last", "freeze_vision": True}
    assert trainings[0].spec_from(JOB_ID)["model"] == expected


def test_a_warm_up_per_seed_has_the_seed() -> None:
    expansion = expand(study(warm_up={"changes": {"algorithm": {"type": "sft"}}, "each_seed": True}))
    warm_ups = {job.seed: job for job in expansion.of("warm-up")}
    assert [(seed, job.spec["seed"]) for seed, job in warm_ups.items()] == [(3, 3), (5, 5)]
    assert all(job.needs == warm_ups[job.seed].digest for job in expansion.of("training"))


def test_a_digest_depends_on_the_settings_only() -> None:
    def digests(**changes: Any) -> list[str]:
        return [job.digest for job in expand(study(**changes)).jobs]

    assert digests() == digests(name="other", base=BASE | {"priority": "low", "labels": {"a": "b"}})
    assert not {*digests()} & {*digests(base=BASE | {"steps": 4})}
    samples = STUDY["evaluation"] | {"rollout": {"samples": 4}}
    changed = digests(evaluation=samples)
    assert [one == other for one, other in zip(digests(), changed, strict=True)] == [True, False] * 4
    warm = [digests(warm_up={"changes": {"steps": steps}}) for steps in (7, 8)]
    assert not {*warm[0]} & {*warm[1]}


# ---- Files


def test_paths_in_a_file_start_at_its_folder(tmp_path: Path) -> None:
    content = STUDY | {
        "base": BASE | {"data": {"path": "train.jsonl"}},
        "arms": {"a": {"data.path": "other.jsonl"}, "b": {"model": {"path": "big"}}},
        "evaluation": {"data": [{"path": "test.jsonl"}]},
        "axes": {"validation": [{"data": {"path": "v.jsonl"}}]},
    }
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(content))
    found = read_study(file)
    folder = str(tmp_path)
    assert found.base["data"] == {"path": f"{folder}/train.jsonl"}
    assert found.arms == {"a": {"data.path": f"{folder}/other.jsonl"}, "b": {"model": {"path": f"{folder}/big"}}}
    assert found.axes == {"validation": ({"data": {"path": f"{folder}/v.jsonl"}},)}
    assert found.evaluation.data[0].model_dump(include={"path"}) == {"path": f"{folder}/test.jsonl"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 1", "a study is a mapping"),
        ("name: a", "base: Field required; seeds: Field required; evaluation: Field required"),
        (yaml.safe_dump(STUDY | {"seeds": [1, 1]}), "seeds: a seed is given twice"),
    ],
)
def test_a_faulty_file_is_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(content)
    with pytest.raises(SpecError) as caught:
        read_study(file)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)
