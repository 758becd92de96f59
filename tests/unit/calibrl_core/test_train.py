"""Whole runs of the trainer: events, resume, stopping, evaluation, and the process around them."""

import contextlib
import json
import math
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from calibrl_core.config import BuiltinModel, EvaluateConfig, TrainConfig
from calibrl_core.data.schema import DataError
from calibrl_core.evaluate import evaluate
from calibrl_core.host.stop_signal import StopSignal
from calibrl_core.models.policy import load_policy
from calibrl_core.report import EventFile
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.run.checkpoint import Checkpoints, QuotaError
from calibrl_core.run.process import run_process
from calibrl_core.settings.record import CheckpointSettings
from calibrl_core.train import train
from calibrl_core.verifiers.scorer import Score, Scorer
from tests.support.training import DIGITS, config, events, of_type

SFT = {"algorithm": {"type": "sft"}, "rollout": {"max_completion_tokens": 32}}
DAPO = {"algorithm": {"type": "dapo", "mini_batches": 1, "max_resamples": 2}}


def run(tmp_path: Path, name: str, settings: Any, stop_after: Any = None) -> Any:
    """Train in `tmp_path/name`, stopping after some steps if asked; the run's folder and result."""
    report = EventFile(tmp_path / name)
    began = len(of_type(report.run_dir, "metrics"))

    def should_stop() -> Any:
        return stop_after is not None and len(of_type(report.run_dir, "metrics")) - began >= stop_after

    result = train(settings, report, should_stop)
    report.close()
    return report.run_dir, result


@pytest.mark.usefixtures("rewarding")
def test_a_reinforcement_run_reports_its_metrics(tmp_path: Path) -> None:
    folder, result = run(tmp_path, "run", config(optimizer={"lr": 1e-3, "schedule": "linear"}))
    assert result["status"] == "succeeded"
    values = [event["values"] for event in of_type(folder, "metrics")]
    assert [each["schedule/learning_rate"] for each in values] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    epochs = [each["schedule/epoch"] for each in values]
    assert epochs == pytest.approx([2 / 6, 4 / 6, 1.0, 8 / 6])
    assert all(each["perf/cpu_cores/0"] > 0 and each["perf/host_memory_bytes/0"] > 2**20 for each in values)
    assert [event["step"] for event in of_type(folder, "metrics")] == [1, 2, 3, 4]
    expected = {
        *("reward/mean", "reward/std", "reward/answer_accuracy", "reward/strict_accuracy"),
        *("exploration/entropy", "exploration/active_groups", "rareness/mean", "rareness/wrong"),
        *("expert/gap_mean", "expert/gap_wrong", "expert/nll", "expert/quadrant_overconfident_wrong"),
        *(
            "expert/quadrant_confident_correct",
            "expert/quadrant_underconfident_correct",
            "expert/quadrant_humble_wrong",
        ),
        *("loss/policy", "loss/guidance", "loss/total", "loss/grad_norm", "clip/low_share", "clip/high_share"),
        *("length/mean", "length/truncated_share", "perf/step_seconds", "perf/rollout_seconds"),
        *("perf/reward_seconds", "perf/update_seconds", "perf/tokens_per_second"),
    }
    assert any(event["values"]["loss/grad_norm"] > 0 for event in of_type(folder, "metrics"))
    assert set.union(*(set(event["values"]) for event in of_type(folder, "metrics"))) >= expected
    histograms = of_type(folder, "histogram")
    assert {(event["step"], event["name"]) for event in histograms} >= {
        (step, name) for step in (1, 2, 3, 4) for name in ("rareness", "expert/gap")
    }
    assert all(sum(event["counts"]) == 4 for event in histograms if event["name"] == "rareness")
    samples = of_type(folder, "sample")
    assert [event["step"] for event in samples] == [1, 2, 4]
    group = samples[0]["group"]
    (image,) = group["images"]
    assert (folder / "images" / f"{image}.png").read_bytes().startswith(b"\x89PNG")
    assert len(group["completions"]) == 2
    for completion in group["completions"]:
        count = len(completion["tokens"])
        assert count == len(completion["logprobs"]) == len(completion["entropies"]) == len(completion["gaps"])
    checkpoints = of_type(folder, "checkpoint")
    assert [event["step"] for event in checkpoints] == [2, 4]
    assert all((folder / "checkpoints" / f"step-{step:06d}" / "model.safetensors").is_file() for step in (2, 4))


@pytest.mark.usefixtures("rewarding")
@pytest.mark.parametrize("changes", [{}, SFT, DAPO], ids=["calibrl", "sft", "dapo"])
def test_stop_and_resume_is_bit_for_bit_one_run(tmp_path: Path, changes: Any) -> None:
    whole, _ = run(tmp_path, "whole", config(**changes))
    halves, stopped = run(tmp_path, "halves", config(**changes), stop_after=1)
    assert (stopped["status"], stopped["step"]) == ("stopped", 1)
    (tmp_path / "halves" / "checkpoints" / ".partial-step-000003").mkdir()  # half-written: never picked
    (tmp_path / "halves" / "checkpoints" / "step-000009").mkdir()  # not whole either
    _, ended = run(tmp_path, "halves", config(**changes))
    assert ended["status"] == "succeeded"
    for file in ("model.safetensors", "optimizer.safetensors"):
        one, other = (load_file(folder / "checkpoints" / "step-000004" / file) for folder in (whole, halves))
        assert one.keys() == other.keys() != set()
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    fresh = load_policy(BuiltinModel(builtin="tiny-vlm")).model.state_dict()
    assert not torch.equal(
        load_file(whole / "checkpoints" / "step-000004" / "model.safetensors")["lm_head.weight"],
        fresh["lm_head.weight"],
    )
    reported = [
        [{k: v for k, v in event["values"].items() if not k.startswith("perf/")} for event in of_type(one, "metrics")]
        for one in (whole, halves)
    ]
    assert reported[0] == reported[1]
    assert [event["step"] for event in of_type(halves, "start")] == [0, 1]


@pytest.mark.usefixtures("rewarding")
def test_a_step_that_has_learned_nothing_is_left_and_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run(tmp_path, "whole", config())
    stop, real = StopSignal(), SharedPrefillEngine.generate
    left: list[int] = []

    def interrupted(engine: Any, examples: Any, request: Any) -> Any:
        if [*request.seed][1:] == [2, 0] and not left:  # the third step
            left.append(1)
            with contextlib.suppress(Exception):  # what handles errors does not handle this
                stop.receive(signal.SIGTERM, None)
            left.append(2)
        return real(engine, examples, request)

    monkeypatch.setattr(SharedPrefillEngine, "generate", interrupted)
    report = EventFile(tmp_path / "halves")
    stopped = train(config(), report, stop)
    report.close()
    assert (stopped["status"], stopped["step"], left) == ("stopped", 2, [1])
    halves, ended = run(tmp_path, "halves", config())
    assert (ended["status"], [event["step"] for event in of_type(halves, "start")]) == ("succeeded", [0, 2])
    one, other = (load_file(folder / "checkpoints" / "step-000004" / "model.safetensors") for folder in (whole, halves))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_run_that_learns_nothing_says_so_once(tmp_path: Path) -> None:
    """A fresh model is never right: all rewards are 0."""
    folder, _ = run(
        tmp_path, "run", config(steps=12, prompts_per_step=1, algorithm={"type": "calibrl", "mini_batches": 1})
    )
    (alert,) = [event for event in of_type(folder, "health") if event["rule"] == "no_advantage"]
    assert (alert["state"], "no learning signal" in alert["message"]) == ("fired", True)


def test_training_changes_weights_and_sft_lowers_its_loss(tmp_path: Path) -> None:
    settings = config(**SFT, steps=12, prompts_per_step=6)
    folder, _ = run(tmp_path, "sft", settings)
    losses = [event["values"]["loss/total"] for event in of_type(folder, "metrics")]
    assert losses[-1] < losses[0] / 2


def test_validation_keeps_the_best_and_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([0.1, 0.3, 0.2, 0.5])
    real = __import__("calibrl_core.evaluation.accuracy", fromlist=["summarise"]).summarise
    monkeypatch.setattr(
        "calibrl_core.evaluation.validation.summarise",
        lambda *arguments: real(*arguments) | {"accuracy": next(accuracies)},
    )
    validation = {"data": DIGITS, "every_steps": 2, "samples": 1, "stop_at_accuracy": 0.45}
    checkpoints = {"every_steps": 100, "keep_last": 1}
    folder, result = run(tmp_path, "run", config(**SFT, steps=20, validation=validation, checkpoints=checkpoints))
    assert (result["status"], result["step"]) == ("succeeded", 8)
    assert result["result"]["best_step"] == 8
    assert "reached stop_at_accuracy" in of_type(folder, "log")[-1]["message"]
    progress = of_type(folder, "progress")[-1]
    assert (progress["step"], progress["steps_total"]) == (8, 8)
    assert [event["step"] for event in of_type(folder, "checkpoint")] == [2, 4, 8]
    _, result = run(tmp_path, "run", config(**SFT, steps=20, validation=validation, checkpoints=checkpoints))
    assert (result["status"], result["step"]) == ("succeeded", 8)


def test_pruning_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        folder = tmp_path / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        (folder / "trainer.json").write_text("{}")
    checkpoints = Checkpoints(tmp_path, CheckpointSettings(keep_last=1))
    surplus = checkpoints.surplus(best_step=2)
    assert [path.name for path in surplus] == ["step-000001", "step-000003"]
    checkpoints.remove(surplus)
    assert [path.name for path in checkpoints.all()] == ["step-000002", "step-000004"]


@pytest.mark.parametrize(
    ("best", "gigabytes", "surplus", "kept_within"),
    [
        (None, 5e-6, [1], True),  # 5 checkpoints of 1 kB, of which keep_last keeps 4
        (None, 3.9e-6, [1, 2], True),
        (None, 1e-6, [1, 2, 3, 4], True),
        (None, 0.9e-6, [1, 2, 3, 4], False),
        (1, 4.9e-6, [2], True),  # the best is one more, and the oldest of the others goes
        (3, 2e-6, [1, 2, 4], True),
        (3, 1.9e-6, [1, 2, 4], False),
        (5, 1e-6, [1, 2, 3, 4], True),
    ],
)
def test_pruning_within_a_quota_keeps_the_newest_and_the_best(
    tmp_path: Path, best: int | None, gigabytes: float, surplus: list[Any], kept_within: bool
) -> None:
    for step in range(1, 6):
        folder = tmp_path / "checkpoints" / f"step-{step:06d}" / "adapter"
        folder.mkdir(parents=True)
        (folder.parent / "trainer.json").write_text("{}")
        (folder / "weights").write_bytes(bytes(998))
    checkpoints = Checkpoints(tmp_path, CheckpointSettings(keep_last=4, max_gigabytes=gigabytes))
    found = checkpoints.surplus(best)
    assert [path.name for path in found] == [f"step-{step:06d}" for step in surplus]
    checkpoints.remove(found)
    if kept_within:
        checkpoints.check_quota()
    else:
        with pytest.raises(QuotaError, match=r"raise checkpoints.max_gigabytes"):
            checkpoints.check_quota()


def test_a_run_keeps_as_many_checkpoints_as_its_quota_holds(tmp_path: Path) -> None:
    """Each is 16.4 MB."""
    checkpoints = {"every_steps": 1, "keep_last": 4, "max_gigabytes": 0.04}
    folder, result = run(tmp_path, "run", config(steps=4, checkpoints=checkpoints))
    assert result["status"] == "succeeded"
    names = [path.name for path in sorted((folder / "checkpoints").iterdir())]
    assert names == ["step-000003", "step-000004"]
    removed = [[path[-6:] for path in event["removed"]] for event in of_type(folder, "checkpoint")]
    assert removed == [[], [], ["000001"], ["000002"]]


def test_a_checkpoint_larger_than_the_quota_ends_the_run_and_stays(tmp_path: Path) -> None:
    checkpoints = {"every_steps": 1, "max_gigabytes": 0.01}
    with pytest.raises(QuotaError, match=r"need 0.0164 GB; raise checkpoints.max_gigabytes \(0.01\)"):
        run(tmp_path, "run", config(checkpoints=checkpoints))
    (event,) = of_type(tmp_path / "run", "checkpoint")
    assert (tmp_path / "run" / "checkpoints" / "step-000001").is_dir() and event["step"] == 1


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for step in (999_950, 1_000_000):
        folder = tmp_path / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        (folder / "trainer.json").write_text("{}")
    assert Checkpoints(tmp_path, CheckpointSettings()).all()[-1].name == "step-1000000"


def test_a_target_ends_the_run_though_the_best_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibrl_core.evaluation.validation.summarise", lambda *arguments: {"accuracy": 0.5})
    validation = {"data": DIGITS, "every_steps": 1, "samples": 1, "stop_at_accuracy": 0.45}
    checkpoints = {"every_steps": 100, "keep_best": None}
    _, result = run(tmp_path, "run", config(**SFT, steps=20, validation=validation, checkpoints=checkpoints))
    assert (result["status"], result["step"]) == ("succeeded", 1)


def test_a_resumed_run_reports_its_checkpoints_again(tmp_path: Path) -> None:
    """A kill may have come between writing one and telling of it."""
    folder, _ = run(tmp_path, "run", config(**SFT))
    reported = len(of_type(folder, "checkpoint"))
    run(tmp_path, "run", config(**SFT))
    assert [event["step"] for event in of_type(folder, "checkpoint")[reported:]] == [2, 4]


def test_calibrl_needs_experts(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('{"question": "q", "answer": "1"}\n')
    settings = config(data={"path": str(tmp_path / "own.jsonl")})
    with pytest.raises(DataError, match="needs experts"):
        run(tmp_path, "run", settings)
    folder, _ = run(tmp_path, "grpo", config(data=settings.data, algorithm={"type": "grpo"}, prompts_per_step=4))
    metrics = of_type(folder, "metrics")[0]["values"]
    assert not any(name.startswith("expert/") for name in metrics)


def test_evaluation(tmp_path: Path) -> None:
    report = EventFile(tmp_path)
    settings = EvaluateConfig.model_validate(
        {
            "models": [{"builtin": "tiny-vlm"}, {"builtin": "tiny-vlm", "seed": 1}],
            "data": [{"builtin": "digits", "split": "test", "rows": 5}],
            "rollout": {"samples": 2, "max_completion_tokens": 4},
        }
    )
    result = evaluate(settings, report, lambda: False)
    assert [row["model_index"] for row in result["result"]["results"]] == [0, 1]
    assert result["result"]["results"][0]["metrics"]["accuracy"] == 0.0
    (comparison,) = result["result"]["comparisons"]
    assert (comparison["difference"], comparison["distinguishable"]) == (0.0, False)
    assert [event["step"] for event in of_type(tmp_path, "progress")] == [1, 2, 3, 4]
    assert of_type(tmp_path, "start")[0]["steps_total"] == 4
    assert "eval/test/greedy_accuracy" in of_type(tmp_path, "metrics")[1]["values"]
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 20
    stopped = evaluate(settings, EventFile(tmp_path / "stopped"), lambda: True)
    assert stopped["status"] == "stopped"


@pytest.fixture
def as_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs what a trainer's process runs, in this one, with such a config file or none; its exit status."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run_with(config: Any, *options: Any) -> Any:
        path = tmp_path / "config.json"
        if config is not None:
            path.write_text(json.dumps(config))
        monkeypatch.setattr(sys, "argv", ["train", str(path), "--run-dir", str(tmp_path / "run"), *options])
        with pytest.raises(SystemExit) as ended:
            run_process(TrainConfig, train)
        return ended.value.code

    yield run_with
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_process_refuses_a_model_with_a_link_out_of_its_root(
    tmp_path: Path, as_process: Callable[..., Any]
) -> None:
    model = tmp_path / "allowed" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "chat_template.jinja").symlink_to("/proc/self/environ")
    spec = {"model": {"path": str(model)}, "data": DIGITS, "steps": 1}
    assert as_process(spec, f"--root={tmp_path / 'allowed'}") == 1
    last = events(tmp_path / "run")[-1]
    assert (last["type"], last["reason"]) == ("error", "bad_spec") and "leads out of" in last["message"]


@pytest.mark.parametrize(
    ("changes", "reported"),
    [
        ({"model": {"path": "/nowhere/at/all"}}, "model.path: /nowhere/at/all"),
        ({"model": {"builtin": "tiny-vlm", "lora": {"targets": ["nope"]}}}, "lora.targets"),
        (None, "config.json cannot be read"),
    ],
)
def test_unusable_settings_are_a_bad_spec_in_a_sentence(
    tmp_path: Path,
    as_process: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
    changes: dict[str, Any] | None,
    reported: str,
) -> None:
    status = as_process(None if changes is None else {"data": DIGITS, "steps": 1, **changes})
    last = events(tmp_path / "run")[-1]
    assert (status, last["type"], last["reason"]) == (1, "error", "bad_spec")
    assert reported in last["message"]
    shown = capfd.readouterr().err
    assert reported in " ".join(shown.split())
    assert "Traceback" not in shown


def test_ten_non_finite_updates_in_a_row_end_the_job_and_are_counted(
    tmp_path: Path, as_process: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two a step, so that the fifth step does not come to its end."""

    def nothing_known(self: Any, inputs: Any) -> Any:
        return [Score({"math": 0.0, "format": 0.0}, math.nan, False, False) for _ in inputs]

    monkeypatch.setattr(Scorer, "grade", nothing_known)
    assert as_process(config(steps=100).model_dump(mode="json")) == 1
    last = events(tmp_path / "run")[-1]
    assert (last["type"], last["reason"]) == ("error", "non_finite")
    assert "10 updates in a row; lower optimizer.lr" in last["message"]
    reported = [event["values"] for event in of_type(tmp_path / "run", "metrics")]
    assert [(values["loss/skipped_updates"], values["loss/total"]) for values in reported] == [(2.0, "NaN")] * 4
