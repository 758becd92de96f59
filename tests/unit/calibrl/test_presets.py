"""The presets: each a whole job's spec, and what it promises."""

import json
import math
import re
from pathlib import Path

import pytest

from calibrl import presets
from calibrl.schemas import TrainSpec, job_spec_adapter
from calibrl.specfile import read_spec
from calibrl_core.algorithms import GRPO, LUFFY, SFT, CalibRL
from calibrl_core.algorithms.base import AlgorithmSettings
from calibrl_core.algorithms.registry import BUILT_IN
from calibrl_core.config import BuiltinModel, TrainConfig, TrainSettings
from calibrl_core.data.schema import BuiltinData

ELSEWHERE = {"grpo_trl": "TRL", "grpo_verl": "verl", "luffy_published": "published"}  # as another project runs it


def spec(name: str, folder: Path, overrides: tuple[str, ...] = ()) -> TrainSpec:
    """A preset as a user hands it in: written to a file, read by the command line, checked by the service."""
    file = folder / "my.yaml"
    file.write_text(presets.text(name))
    found = job_spec_adapter.validate_python(read_spec(file, list(overrides)))
    assert isinstance(found, TrainSpec)
    return found


@pytest.mark.parametrize("algorithm", BUILT_IN)
def test_every_algorithm_has_a_preset_for_the_digits(algorithm: type[AlgorithmSettings], tmp_path: Path) -> None:
    name = algorithm.model_fields["type"].default
    found = spec(name, tmp_path)
    assert isinstance(found.algorithm, algorithm)
    assert isinstance(found.model, BuiltinModel)
    assert isinstance(found.data, BuiltinData)
    assert found.resources.gpus == 0
    assert presets.summary(name) in presets.text(name).splitlines()[0]


def test_the_presets_are_exactly_the_expected_ones() -> None:
    builtin = {algorithm.model_fields["type"].default for algorithm in BUILT_IN}
    assert {*presets.names()} == builtin | {"paper_as_run", *ELSEWHERE}
    with pytest.raises(KeyError):
        presets.text("../presets/grpo")


@pytest.mark.parametrize("name", presets.names())
def test_each_preset_begins_with_its_purpose(name: str) -> None:
    first, second, *_ = presets.text(name).splitlines()
    assert first == f"# {presets.summary(name)}"
    assert first.endswith(".")
    assert second.startswith("# ")


def test_between_digits_presets_only_the_algorithm_differs(tmp_path: Path) -> None:
    names = [name for name in presets.names() if name not in ("sft", "paper_as_run", *ELSEWHERE)]
    found = [spec(name, tmp_path).model_dump(exclude={"name", "algorithm"}) for name in names]
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_each_deviation_from_a_default_has_its_source(name: str, tmp_path: Path) -> None:
    """In the comment of its line: the project that sets it so, and the name of the setting there."""
    found, lines = spec(name, tmp_path), presets.text(name).splitlines()
    for part in (found.algorithm, found.rollout, found.optimizer):
        changed = [field for field, value in part if value != type(part).model_fields[field].default]
        for field in changed:
            (line,) = [line for line in lines if re.search(rf"\b{field}: ", line.split("#")[0])]
            assert f"# {ELSEWHERE[name]}: " in line, line


def test_grpo_of_trl_and_verl(tmp_path: Path) -> None:
    trl, verl = (spec(name, tmp_path) for name in ("grpo_trl", "grpo_verl"))
    assert isinstance(trl.algorithm, GRPO)
    assert isinstance(verl.algorithm, GRPO)
    assert (trl.algorithm.dual_clip, verl.algorithm.dual_clip) == (None, 3.0)
    assert (trl.algorithm.kl_coef, verl.algorithm.kl_coef) == (0.0, 0.001)
    assert (trl.rollout.importance_correction, trl.rollout.importance_cap) == ("sequence_mask", 3.0)
    assert verl.rollout.importance_correction == "none"


def test_luffy_as_published_never_clips(tmp_path: Path) -> None:
    algorithm = spec("luffy_published", tmp_path).algorithm
    assert isinstance(algorithm, LUFFY)
    assert (algorithm.clip_low, algorithm.dual_clip) == (1.0, None)
    assert 1 + algorithm.clip_high > math.exp(20)  # beyond the largest ratio


def test_a_preset_can_start_from_a_warm_up_job(tmp_path: Path) -> None:
    id = "00000000-0000-0000-0000-000000000001"
    found = spec("calibrl", tmp_path, (f"model.from_job={id}",))
    assert found.model.model_dump()["from_job"].hex == id.replace("-", "")
    assert isinstance(spec("sft", tmp_path).algorithm, SFT)


def test_paper_as_run_is_the_published_arithmetic(tmp_path: Path) -> None:
    found = spec("paper_as_run", tmp_path)
    algorithm = found.algorithm
    assert isinstance(algorithm, CalibRL)
    processes = found.resources.gpus
    assert processes == 8
    rows = found.prompts_per_step // processes * (found.rollout.group_size + 1)
    assert rows == 660
    assert algorithm.mini_batch_rows == 150
    updates, left = divmod(rows, algorithm.mini_batch_rows)
    assert (updates + 1, left) == (5, 60)
    assert (found.micro_batch_rows, algorithm.micro_batch_mean, algorithm.expert_tail) == (6, True, "zero_for_all")
    assert not found.shuffle_data
    assert found.rollout.importance_correction == "none"
    assert found.precision == "bfloat16"
    assert presets.text("paper_as_run").count("PLACEHOLDER") == 3


@pytest.mark.slow
def test_paper_as_run_takes_its_five_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of its eight processes runs one step, with a tiny model and rollouts of two tokens."""
    from calibrl_core.report import EventFile
    from calibrl_core.run import surroundings
    from calibrl_core.step.optimizer import GradientStep
    from calibrl_core.train import train
    from calibrl_core.verifiers.reward_input import RewardInput
    from calibrl_core.verifiers.scorer import Score, Scorer

    updates = []
    apply = GradientStep.apply

    def counting(self: GradientStep) -> tuple[float, bool]:
        updates.append(apply(self))
        return updates[-1]

    def some_groups_divide(self: Scorer, inputs: list[RewardInput]) -> list[Score]:
        """Every ninth: one or two per update, two of them cut by the end of an update; and few rows, to be quick."""
        right = [place // 10 % 9 == 0 and place % 2 == 0 for place in range(len(inputs))]
        return [Score({"math": float(one), "format": 0.0}, float(one), one, False) for one in right]

    monkeypatch.setattr(surroundings, "_git", lambda root, *arguments: None)  # a unit test starts no process
    monkeypatch.setattr(GradientStep, "apply", counting)
    monkeypatch.setattr(Scorer, "grade", some_groups_divide)
    found = spec("paper_as_run", tmp_path).model_dump()
    found["model"] = {"builtin": "tiny-vlm", "gradient_checkpointing": found["model"]["gradient_checkpointing"]}
    found["data"] = {"builtin": "digits", "split": "train", "rows": 60}
    found["rollout"]["max_completion_tokens"] = 2
    small = {name: found[name] for name in TrainConfig.model_fields if name in found} | {
        "prompts_per_step": 480 // 8,
        "steps": 1,
    }
    report = EventFile(tmp_path / "run")
    ended = train(TrainConfig.model_validate(small), report, lambda: False)
    report.close()
    assert ended["status"] == "succeeded"
    assert len(updates) == 5
    assert all(applied and norm > 0 for norm, applied in updates)
    events = map(json.loads, (tmp_path / "run" / "events.jsonl").read_text().splitlines())
    (reported,) = [event["values"] for event in events if event["type"] == "metrics"]
    assert reported["loss/guidance"] > 0
    assert all(math.isfinite(value) for value in reported.values())


def test_paper_as_run_differs_from_the_defaults_in_its_accidents_only(tmp_path: Path) -> None:
    found = spec("paper_as_run", tmp_path)
    default = TrainSettings(steps=found.steps)
    given, usual = found.model_dump(), default.model_dump()
    differing = {"algorithm", "rollout", "shuffle_data", "micro_batch_rows", "precision", "parallel"}
    assert {name for name in usual if given[name] != usual[name]} == differing
    accidents = {"expert_tail", "mini_batch_rows", "micro_batch_mean"}
    assert {name for name, value in usual["algorithm"].items() if given["algorithm"][name] != value} == accidents
    assert usual["rollout"] | {"importance_correction": "none"} == given["rollout"]
