"""Two processes do what one does: DDP and FSDP2 on gloo, started by the real launchers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from calibrl_core import data
from calibrl_core.config import TrainConfig
from calibrl_core.data.schema import BuiltinData, Example
from calibrl_core.distributed.ranks import ALONE
from calibrl_core.models.policy import load_policy
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.verifiers.scorer import Scorer
from tests.families.build import write_vision
from tests.families.more_vision import FAMILIES
from tests.process.calibrl_core import run_ranks
from tests.support.processes import processes_with
from tests.support.training import of_type, score_or_miss
from tests.support.waiting import LIMIT_SECONDS, eventually

SCRIPT = Path(run_ranks.__file__)
ROOT = Path(__file__).parents[3]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = [str(Path(sys.executable).with_name("accelerate")), "launch", "--multi_gpu", "--num_processes", "2"]
ACCELERATE += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
LAST = "checkpoints/step-000002"
TINY = {"builtin": "tiny-vlm"}
LUFFY = {"type": "luffy", "mini_batches": 2, "mix_ratio": 0.5, "kl_coef": 0.1}
TIED = {"model": {"path": "tied"}, "data": {"path": "no-images.jsonl"}}
# Of three prompts, one process takes one and the other two; each is in its own mini-batch, of which the other
# process has no row.
BASE: dict[str, Any] = {
    "model": TINY,
    "data": {"builtin": "digits", "split": "train", "rows": 6},
    "validation": {"data": {"builtin": "digits", "split": "validation", "rows": 5}, "every_steps": 2, "samples": 2},
    "algorithm": {"type": "calibrl", "mini_batches": 3},
    "rollout": {"group_size": 3, "max_completion_tokens": 6},
    "optimizer": {"lr": 1e-4},
    "prompts_per_step": 3,
    "steps": 2,
    "micro_batch_rows": 2,
    "checkpoints": {"every_steps": 2},
}
# Both processes have rows in the one mini-batch, and what they compare gradients on makes one process's micro-batch.
TOGETHER = {"algorithm": {"type": "calibrl", "mini_batches": 1}, "micro_batch_rows": None}
SOME_IMAGES = {"data": {"path": "some-images.jsonl"}, "micro_batch_rows": 1}
EACH_STEP = {**BASE["validation"], "every_steps": 1}
ALIKE: dict[str, dict[str, Any]] = {
    "ddp": TOGETHER,
    "fsdp together": {**TOGETHER, "parallel": "fsdp"},
    "fsdp": {"parallel": "fsdp", **SOME_IMAGES},
    "cross-attention": {"parallel": "fsdp", "model": {"path": "mllama"}, **SOME_IMAGES},
    "dapo": {"algorithm": {"type": "dapo", "mini_batches": 2, "max_resamples": 3}},
    "lora": {"parallel": "fsdp", "model": {**TINY, "lora": {"rank": 2}}, "algorithm": LUFFY},
    "chord": {
        "parallel": "fsdp",
        "data": {"path": "one-expert.jsonl"},
        "algorithm": {"type": "chord", "mini_batches": 1},
    },
    "passes": {"algorithm": {"type": "grpo", "mini_batches": 2, "epochs_per_step": 2, "advantages": "batch"}},
    "one expert": {
        "parallel": "fsdp",
        "data": {"path": "one-expert.jsonl"},
        "algorithm": {"type": "grpo", "mini_batches": 1},
    },
    "controlled": {
        **TOGETHER,
        "algorithm": {
            "type": "calibrl",
            "mini_batches": 1,
            "guidance_control": {"low": 20, "high": 30, "factor": 2},  # above the entropy of a fresh model
        },
    },
    # In the second step the first process's only group has no verdict: it takes one of the other process's two.
    "dropped": {**TOGETHER, "parallel": "fsdp", "rewards": [{"type": "math", "on_failure": "drop_group"}]},
    "kl": {"parallel": "fsdp", "algorithm": {"type": "grpo", "mini_batches": 2, "kl_coef": 0.1}},
    "recomputed": {"parallel": "fsdp", "model": {**TINY, "gradient_checkpointing": True}},
    "recomputed lora": {
        "parallel": "fsdp",
        "model": {**TINY, "gradient_checkpointing": True, "lora": {"rank": 2}},
    },
    "sft validated": {"parallel": "fsdp", "algorithm": {"type": "sft"}, "validation": EACH_STEP},
    "sft": {**TIED, "parallel": "fsdp", "algorithm": {"type": "sft"}, "validation": None},
}
# Each process scores its rollouts before the first of three updates. In bfloat16 the packing changes the numbers:
# one process is no reference. Updates of this rate change no weight, so that every ratio must be 1.
RESCORED = {
    "parallel": "fsdp",
    "precision": "bfloat16",
    "model": {**TINY, "gradient_checkpointing": True},
    "optimizer": {"lr": 1e-30},
}
TO_RESCORE = {f"rescored {type}": {"type": type, "mini_batches": 3} for type in ("grpo", "gspo", "calibrl")}
# Of five prompts, one process takes two and the other three.
EVALUATION = {
    "models": [TINY],
    "data": [{"builtin": "digits", "split": "validation", "rows": 5}],
    "rollout": {"samples": 2, "max_completion_tokens": 6},
}
AUDIT = {
    "model": TINY,
    "data": {"builtin": "digits", "split": "validation", "rows": 5},
    "rollout": {"group_size": 2, "max_completion_tokens": 30},
    "rewrite": True,
}
STOPPING = {"rewards": [{"type": "math", "on_failure": "stop"}]}
PUBLISHED = {"algorithm": {"type": "calibrl", "mini_batch_rows": 4, "micro_batch_mean": True}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, text_policy: Callable[..., Any]) -> Path:
    """Return the folder of all runs: each of `ALIKE` by one process (one/) and by two (two/); and others."""
    root = tmp_path_factory.mktemp("ranks")
    write_data(root, text_policy)
    configs = {name: resolved(root, BASE | changes) for name, changes in ALIKE.items()}
    sharded = configs["fsdp"]
    runs: list[dict[str, Any]] = [{"folder": f"two/{name}", "config": config} for name, config in configs.items()]
    runs.append({"folder": "two/evaluation", "evaluate": EVALUATION})
    runs.append({"folder": "two/audit", "audit": AUDIT})
    runs.append({"folder": "published", "config": BASE | PUBLISHED})
    runs.append({"folder": "stopping", "config": BASE | STOPPING})
    runs += [{"folder": name, "config": BASE | RESCORED | {"algorithm": one}} for name, one in TO_RESCORE.items()]
    runs.append({"folder": "sharded-two"})
    runs.append({"folder": "two-then-one", "config": sharded, "stop_after": 1})
    runs.append({"folder": "one-then-two", "config": sharded})
    for run in runs:
        run["folder"] = str(root / run["folder"])
    (root / "runs.json").write_text(json.dumps(runs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scorer, "grade", score_or_miss)
        run_ranks.run(root / "one-then-two", sharded, 1, ALONE)
        with started([*TORCHRUN, str(SCRIPT), str(root / "runs.json")], root / "log.txt") as processes:
            run_ranks.evaluation(root / "one/evaluation", EVALUATION, ALONE)
            run_ranks.audited(root / "one/audit", AUDIT, ALONE)
            for name, config in configs.items():
                run_ranks.run(root / "one" / name, config, None, ALONE)
            assert processes.wait(LIMIT_SECONDS) == 0, (root / "log.txt").read_text()
        run_ranks.run(root / "two-then-one", sharded, None, ALONE)
    return root


@contextmanager
def started(command: list[str], log: Path) -> Iterator[Any]:
    """A command, killed at the end if it still runs; so are its processes, which die with it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(int(LIMIT_SECONDS))}
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def write_data(root: Path, text_policy: Callable[..., Any]) -> None:
    """Digits of which some have lost their picture, or all have, or all but one their expert; a text model whose head
    is its embedding, and a model with cross-attention."""
    from transformers import Qwen2Config

    tied = text_policy(Qwen2Config, tie_word_embeddings=True)
    tied.save(root / "tied")
    write_vision(root / "mllama", tied.tokenizer, FAMILIES["Mllama"])
    examples = data.load(BuiltinData(builtin="digits", split="train", rows=6))
    rows = [
        {"question": one.question.replace("<image>", ""), "answer": one.answer, "expert": one.expert}
        for one in examples
    ]
    (root / "no-images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bare = [{**row, "expert": row["expert"] if place == 2 else None} for place, row in enumerate(rows)]
    (root / "one-expert.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    for index in (0, 3):
        (root / f"{index}.png").write_bytes(examples[index].images[0])
        rows[index]["image"] = f"{index}.png"
    (root / "some-images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def resolved(root: Path, config: dict[str, Any]) -> dict[str, Any]:
    return config | {
        field: {"path": str(root / config[field]["path"])} for field in ("model", "data") if "path" in config[field]
    }


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Return the metrics of each step without times."""
    return [
        {name: value for name, value in event["values"].items() if not name.startswith("perf/")}
        for event in of_type(run_dir, "metrics")
    ]


def assert_same_metrics(actual: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    share = "loss/guidance_opposing_share"  # of elements, some of which are so near 0 that rounding decides their sign
    for found, wanted in zip(actual, expected, strict=True):
        assert found.pop(share, None) == pytest.approx(wanted.pop(share, None), abs=1e-3)
        assert found == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def assert_same_weights(found: Path, expected: Path, start: Any) -> None:
    """Up to a small part of the way that they have come since `start`; float32 sums in another order."""
    one, other = (load_file(folder / LAST / "model.safetensors") for folder in (found, expected))
    assert one.keys() == other.keys() <= start.keys()
    moved = sum((other[name] - start[name]).square().sum() for name in other)
    apart = sum((other[name] - one[name]).square().sum() for name in other)
    assert 0 <= apart < 1e-4 * moved


@pytest.mark.slow
@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_compute_the_same_update_as_one(folder: Path, name: str) -> None:
    one, two = folder / "one" / name, folder / "two" / name
    actual, expected = metrics(two), metrics(one)
    assert len(actual) == 2
    assert any(values["loss/grad_norm"] > 0 for values in actual)
    assert_same_metrics(actual, expected)
    config = TrainConfig.model_validate(resolved(folder, BASE | ALIKE[name]))
    start = load_policy(config.model.model_copy(update={"lora": None}))
    assert_same_weights(two, one, dict(start.saved_tensors()))
    for kind in ("histogram", "sample", "checkpoint"):
        assert len(of_type(two, kind)) == len(of_type(one, kind))
    assert len(of_type(two, "start")) == len(of_type(two, "finish")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp", "fsdp together"])
def test_gradients_are_compared_over_all_processes(folder: Path, name: str) -> None:
    """The values equal those of one process (see above); this test checks that there were gradients to compare."""
    found = metrics(folder / "two" / name)[0]
    assert found["loss/policy_grad_norm"] > 0
    assert found["loss/guidance_grad_norm"] > 0
    assert -1 <= found["loss/guidance_cosine"] <= 1
    assert 0 < found["loss/guidance_opposing_share"] < 1


@pytest.mark.slow
def test_a_group_without_verdicts_leaves_the_step_of_all_processes(folder: Path) -> None:
    """The values equal those of one process (see above); this test checks that a group was left out."""
    dropped = [values.get("verdict/dropped_groups") for values in metrics(folder / "two" / "dropped")]
    assert dropped == [None, 1.0]


@pytest.mark.slow
def test_a_missing_verdict_of_one_process_stops_both_with_the_reason(folder: Path) -> None:
    for rank in (0, 1):
        assert "on_failure is stop (math: no answer)" in folder.joinpath(f"stopping.{rank}.txt").read_text()
    assert len(metrics(folder / "stopping")) == 1
    assert [event["step"] for event in of_type(folder / "stopping", "checkpoint")] == [1]


@pytest.mark.slow
@pytest.mark.parametrize("name", TO_RESCORE)
def test_sharded_weights_compute_old_logprobs_as_the_updates_do(folder: Path, name: str) -> None:
    found = metrics(folder / name)
    assert len(found) == 2
    assert any(values["loss/grad_norm"] > 0 for values in found)
    assert all(values.get("ratio/max", 1) == values.get("ratio/mean", 1) == 1 for values in found)
    assert any("ratio/max" in values for values in found)
    assert all(0 <= values.get("kl/sampler", 0.0) < 0.01 for values in found)
    assert any("clip/sampler_share" in values for values in found)


@pytest.mark.slow
def test_a_checkpoint_does_not_depend_on_the_number_of_processes(folder: Path) -> None:
    one, two = (folder / number / "fsdp" / LAST for number in ("one", "two"))
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    moments, expected = (load_file(path / "optimizer.safetensors") for path in (two, one))
    assert {name: (one.shape, one.dtype) for name, one in moments.items()} == {
        name: (one.shape, one.dtype) for name, one in expected.items()
    }
    assert load_policy(TrainConfig.model_validate(BASE | {"model": {"path": str(two)}}).model).parameter_count > 1e6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one-then-two", "two-then-one"])
def test_a_run_resumes_with_another_number_of_processes(folder: Path, name: str) -> None:
    assert [event["step"] for event in of_type(folder / name, "start")] == [0, 1]
    first, last = of_type(folder / name, "finish")
    assert (first["status"], first["step"], last["status"]) == ("stopped", 1, "succeeded")
    assert_same_metrics(metrics(folder / name), metrics(folder / "one" / "fsdp"))
    start = load_policy(TrainConfig.model_validate(BASE).model).model.state_dict()
    assert_same_weights(folder / name, folder / "one" / "fsdp", start)


@pytest.mark.slow
def test_two_processes_evaluate_as_one(folder: Path) -> None:
    one, two = folder / "one/evaluation", folder / "two/evaluation"
    (expected,), (found,) = of_type(one, "finish"), of_type(two, "finish")
    assert found["result"] == expected["result"]
    stored, alone = ((run / "answers.jsonl").read_text().splitlines() for run in (two, one))
    assert len(stored) == 10  # sampled and greedy
    assert [json.loads(line)["texts"] for line in stored] == [json.loads(line)["texts"] for line in alone]


@pytest.mark.slow
def test_two_processes_audit_as_one(folder: Path) -> None:
    stored = [(folder / number / "audit" / "audit.jsonl").read_text().splitlines() for number in ("one", "two")]
    alone, together = ([json.loads(line) for line in lines] for lines in stored)
    assert [row["row"] for row in together] == [1, 2, 3, 4, 5]
    for expected, found in zip(alone, together, strict=True):
        for name in ("verdict", "tokens", "pass_rate", "active", "expert_digest", "rewrite"):
            assert found[name] == expected[name]
        assert found["nll"] == pytest.approx(expected["nll"], rel=1e-5)
    (finished,) = of_type(folder / "two/audit", "finish")
    assert finished["result"]["rows"] == 5


@pytest.mark.slow
def test_mini_batches_end_together_with_unequal_rows_per_process(folder: Path) -> None:
    assert len(metrics(folder / "published")) == 2


@pytest.mark.slow
def test_sharded_weights(folder: Path, engine: SharedPrefillEngine, examples: list[Example]) -> None:
    """Each process keeps a half, has all of them while it samples, and samples what one process would."""
    first, second = (json.loads((folder / f"sharded-two.{rank}.json").read_text()) for rank in (0, 1))
    made = engine.generate(examples[:3], SamplingRequest(group_size=2, temperature=1.0, max_tokens=8, seed=[5]))
    assert first.pop("tokens") == made.tokens.tolist()
    torch.testing.assert_close(torch.tensor(first.pop("logprobs")), made.logprobs)
    for found in (first, second):
        assert found.pop("kept") == pytest.approx(0.5, abs=0.01)
        assert found.pop("restored", True)
        assert len(found) == 6 and all(found.values())


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed: calibrl[adamw-8bit]")
def test_moments_in_8_bits_are_those_of_one_process(folder: Path) -> None:
    assert run_ranks.moments_in_8_bits(folder / "sharded-one", None, ALONE)
    one, two = (load_file(folder / f"sharded-{number}" / LAST / "optimizer.safetensors") for number in ("one", "two"))
    assert one.keys() == two.keys()
    assert sum(name.endswith("_codes") for name in one) > 20
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def running(tmp_path: Path, launcher: list[str], *module: Any) -> Any:
    """The trainer with many steps before it, in `tmp_path/run`."""
    (tmp_path / "config.json").write_text(json.dumps(BASE | {"steps": 100_000, "validation": None}))
    command = [*launcher, *module, str(tmp_path / "config.json"), "--run-dir", str(tmp_path / "run")]
    return started(command, tmp_path / "log.txt")


@pytest.mark.slow
def test_sigterm_to_the_launcher_stops_all_processes_at_the_same_step(tmp_path: Path) -> None:
    with running(tmp_path, ACCELERATE, "-m", "calibrl_core.train") as launcher:
        run_dir = tmp_path / "run"
        eventually(lambda: of_type(run_dir, "metrics"))
        assert len(processes_with(tmp_path)) >= 3  # the launcher and two that train
        launcher.send_signal(signal.SIGTERM)
        launcher.wait(LIMIT_SECONDS)
    (finish,) = of_type(run_dir, "finish")
    assert finish["status"] == "stopped"
    assert [event["step"] for event in of_type(run_dir, "checkpoint")] == [finish["step"]]
    assert len(of_type(run_dir, "start")) == 1
    assert processes_with(tmp_path) == []


@pytest.mark.slow
def test_a_process_that_fails_ends_the_others_and_says_why(tmp_path: Path) -> None:
    with running(tmp_path, TORCHRUN, str(SCRIPT.with_name("run_failing.py"))) as launcher:
        assert launcher.wait(LIMIT_SECONDS) != 0
    cause = of_type(tmp_path / "run", "error")[0]
    assert (cause["reason"], cause["message"].partition(";")[0]) == ("out_of_memory", "out of memory: as told")
    assert len(of_type(tmp_path / "run", "metrics")) == 1
    assert processes_with(tmp_path) == []


@pytest.mark.slow
def test_a_launcher_killed_while_its_processes_still_import_leaves_none(tmp_path: Path) -> None:
    with running(tmp_path, ACCELERATE, str(SCRIPT.with_name("run_importing.py"))) as launcher:
        eventually(lambda: len(processes_with(tmp_path)) >= 3)  # the launcher and its two
        launcher.kill()
        launcher.wait(LIMIT_SECONDS)
        eventually(lambda: processes_with(tmp_path) == [])


@pytest.mark.parametrize("launched", [True, False])
def test_a_process_that_starts_when_its_launcher_is_gone_ends_at_once(tmp_path: Path, launched: bool) -> None:
    """A shell waits for the launcher's end before it becomes Python. Without a launcher's mark the process goes on."""
    late = f"read ended; exec '{sys.executable}' -c 'import calibrl_core; print(1)'"
    launcher = "import subprocess, sys; subprocess.Popen(sys.argv[1:], stdin=-1)"  # a pipe, closed by its end
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} | ({"TORCHELASTIC_RUN_ID": "none"} if launched else {})
    found = subprocess.run(
        [sys.executable, "-c", launcher, "sh", "-c", late],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert (found.stdout, "is gone" in found.stderr) == (("", True) if launched else ("1\n", False))
