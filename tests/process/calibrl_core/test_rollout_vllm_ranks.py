"""Two processes with vLLM servers learn what they should.

`make test-vllm` runs these in their own environment; elsewhere they are skipped.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from calibrl_core.config import BuiltinModel
from calibrl_core.distributed.ranks import ALONE
from calibrl_core.models.policy import load_policy
from calibrl_core.verifiers.scorer import Scorer
from tests.process.calibrl_core import run_ranks
from tests.support.training import of_type, score_by_hash

SCRIPT = Path(run_ranks.__file__)
ROOT = Path(__file__).parents[3]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
LIMIT_SECONDS = 1200
# A rate at which one update moves log-probabilities by some 0.3 nats: weights of an earlier step would show.
CONFIG: dict[str, Any] = {
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits", "split": "train", "rows": 6},
    "validation": {"data": {"builtin": "digits", "split": "validation", "rows": 3}, "every_steps": 3, "samples": 2},
    "algorithm": {"type": "calibrl", "mini_batches": 2},
    "rollout": {"group_size": 3, "max_completion_tokens": 6, "engine": "vllm_server", "batch_tokens": 10_000},
    "optimizer": {"lr": 1e-3},
    "prompts_per_step": 3,
    "steps": 3,
    "checkpoints": {"every_steps": 3},
}
ADAPTERS: dict[str, Any] = {
    "model": {"builtin": "tiny-vlm", "lora": {"rank": 4, "alpha": 16}},
    "optimizer": {"lr": 1e-2},
}
AHEAD = {"max_staleness": 1}
CLOSE = 1e-4  # nats
pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed here: make test-vllm")


def config(kind: str, rollout: dict[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    return CONFIG | {"parallel": kind, "rollout": {**CONFIG["rollout"], **(rollout or {})}} | changed


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the runs. By two processes: two and two-adapters (a server each) and two-ahead (a common
    server that samples ahead); by this process: one and one-ahead.
    """
    two = {
        "two": config("fsdp"),
        "two-adapters": config("fsdp", **ADAPTERS),
        "two-ahead": config("fsdp", {**AHEAD, "server_gpus": 1}),
    }
    root = two_processes(tmp_path_factory.mktemp("served"), two)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scorer, "grade", score_by_hash)
        run_ranks.run(root / "one", config("ddp"), None, ALONE)
        run_ranks.run(root / "one-ahead", config("ddp", AHEAD), None, ALONE)
    return root


def two_processes(root: Path, configs: dict[str, dict[str, Any]]) -> Path:
    """Train with each config, in a folder of its name in `root`; return `root`."""
    runs = [{"folder": str(root / name), "config": config} for name, config in configs.items()]
    (root / "runs.json").write_text(json.dumps(runs))
    command = [*TORCHRUN, str(SCRIPT), str(root / "runs.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-6000:]
    return root


def values(run_dir: Path) -> list[dict[str, float]]:
    return [event["values"] for event in of_type(run_dir, "metrics")]


def assert_same_weights(found: Path, expected: Path) -> None:
    start = load_policy(BuiltinModel(builtin="tiny-vlm")).model.state_dict()
    one, other = (load_file(run / "checkpoints/step-000003/model.safetensors") for run in (found, expected))
    moved = sum(float((other[name] - start[name]).square().sum()) for name in other)
    apart = sum(float((other[name] - one[name]).square().sum()) for name in other)
    assert 0 <= apart < 1e-4 * moved


def assert_same_figures(one: Path, other: Path) -> None:
    for name in ("validation/length_mean", "reward/mean", "exploration/entropy"):
        assert values(one)[-1][name] == pytest.approx(values(other)[-1][name], rel=1e-3)


def test_two_processes_with_servers_learn_what_one_learns(served: Path) -> None:
    """Each process asks its own server for its own prompts: the completions are those of one server."""
    one, two = served / "one", served / "two"
    assert_same_weights(two, one)
    assert_same_figures(two, one)
    assert values(one)[-1]["loss/grad_norm"] > 0


def test_every_step_is_sampled_with_its_own_weights(served: Path) -> None:
    """The largest difference of a token between sampler and trainer is small in every batch of every process."""
    for run in ("one.0", "two.0", "two.1", "two-adapters.0", "two-adapters.1"):
        differences = [float(line) for line in (served / f"{run}.differences").read_text().split()]
        assert len(differences) >= 4  # of 3 steps and a validation
        assert max(differences) < CLOSE, run
    assert values(served / "two-adapters")[-1]["loss/grad_norm"] > 0


def test_a_common_server_that_samples_ahead_is_one_step_behind(served: Path) -> None:
    """One process with its own server, and two with a common one, learn from the same completions."""
    one, two = served / "one-ahead", served / "two-ahead"
    assert_same_weights(two, one)
    assert_same_figures(two, one)
    for run in (one, two):
        first, *later = (step.get("kl/sampler") for step in values(run))
        assert first is None or first < 1e-9
        assert all(found is None or found > 1e-4 for found in later)
        assert any(later)
